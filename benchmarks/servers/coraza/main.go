// Coraza behind the protocol of benchmarks/waf.py: JSON lines with requests in, lines with the rules that matched and times out.
package main

import (
	"bufio"
	"encoding/json"
	"os"
	"sort"
	"strings"
	"time"

	coreruleset "github.com/corazawaf/coraza-coreruleset/v4"
	"github.com/corazawaf/coraza/v3"
	"github.com/corazawaf/coraza/v3/types"
)

type request struct {
	Method, Target, Version string
	Headers                 [][2]string
	Body                    []byte
	Times                   int
}

func inspect(waf coraza.WAF, asked *request) [][3]any {
	one := waf.NewTransaction()
	defer one.Close()
	one.ProcessConnection("127.0.0.1", 1234, "127.0.0.1", 80)
	one.ProcessURI(asked.Target, asked.Method, "HTTP/"+asked.Version)
	for _, header := range asked.Headers {
		one.AddRequestHeader(header[0], header[1])
		if strings.EqualFold(header[0], "host") {
			one.SetServerName(header[1])
		}
	}
	one.ProcessRequestHeaders()
	if len(asked.Body) > 0 {
		one.WriteRequestBody(asked.Body)
	}
	one.ProcessRequestBody()
	one.ProcessLogging()
	matched := [][3]any{}
	for _, rule := range one.MatchedRules() {
		matched = append(matched, [3]any{rule.Rule().ID(), rule.Message(), rule.Data()})
	}
	return matched
}

func main() {
	settings, err := os.ReadFile(os.Args[1])
	if err != nil {
		panic(err)
	}
	directives := string(settings) + "\nInclude @owasp_crs/REQUEST-*.conf\n"
	config := coraza.NewWAFConfig().WithRootFS(coreruleset.FS).WithDirectives(directives)
	waf, err := coraza.NewWAF(config.WithErrorCallback(func(types.MatchedRule) {}))
	if err != nil {
		panic(err)
	}
	in, out := bufio.NewReaderSize(os.Stdin, 1<<24), json.NewEncoder(os.Stdout)
	out.Encode("ready")
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var asked request
		if err := json.Unmarshal(line, &asked); err != nil {
			panic(err)
		}
		matched := inspect(waf, &asked)
		times := make([]float64, asked.Times)
		for number := range times {
			began := time.Now()
			inspect(waf, &asked)
			times[number] = float64(time.Since(began).Microseconds())
		}
		sort.Float64s(times)
		out.Encode(map[string]any{"matched": matched, "times": times})
	}
}
