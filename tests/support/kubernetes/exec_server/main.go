// exec_server is the port of the stand-in's kubelet: it runs commands in containers over SPDY, and passes on the rest.
//
// Usage: exec_server ADDRESS CERTIFICATE SOCKET. The certificate file has the private key too. The kubelet listens at
// the Unix socket. It answers GET /command/NAMESPACE/POD/CONTAINER?command=WORD&command=WORD with the words to run.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

const patience = 30 * time.Second

// protocol is the version in which the error stream has a Status with the exit code.
const protocol = "v4.channel.k8s.io"

func main() {
	address, certificate, socket := os.Args[1], os.Args[2], os.Args[3]
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	kubelet := &url.URL{Scheme: "http", Host: "kubelet"}
	proxy := httputil.NewSingleHostReverseProxy(kubelet)
	proxy.Transport = transport
	client := &http.Client{Transport: transport}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path, found := strings.CutPrefix(r.URL.Path, "/exec/"); found {
			serveExec(w, r, client, kubelet.String()+"/command/"+path+"?"+r.URL.RawQuery)
		} else {
			proxy.ServeHTTP(w, r)
		}
	})
	log.Fatal(http.ListenAndServeTLS(address, certificate, certificate, handler))
}

func serveExec(w http.ResponseWriter, r *http.Request, client *http.Client, question string) {
	words, err := command(client, question)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	if _, err := httpstream.Handshake(r, w, []string{protocol}); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	streams := make(chan httpstream.Stream, 4)
	connection := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, _ <-chan struct{}) error {
		streams <- s
		return nil
	})
	if connection == nil {
		return
	}
	defer connection.Close()
	byType := map[string]httpstream.Stream{}
	for len(byType) < wanted(r.URL.Query()) {
		select {
		case s := <-streams:
			byType[s.Headers().Get("streamType")] = s
		case <-time.After(patience):
			return
		}
	}
	run(r.Context(), words, byType)
}

func command(client *http.Client, question string) ([]string, error) {
	answer, err := client.Get(question)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, errors.New("there is no such container")
	}
	var words []string
	err = json.NewDecoder(answer.Body).Decode(&words)
	return words, err
}

// wanted returns the number of streams: the error stream and those of the query.
func wanted(query url.Values) int {
	count := 1
	for _, name := range []string{"input", "output", "error"} {
		if query.Get(name) == "1" {
			count++
		}
	}
	return count
}

func run(ctx context.Context, words []string, streams map[string]httpstream.Stream) {
	process := exec.CommandContext(ctx, words[0], words[1:]...)
	if s, found := streams["stdin"]; found {
		process.Stdin = s
	}
	if s, found := streams["stdout"]; found {
		process.Stdout = s
	}
	if s, found := streams["stderr"]; found {
		process.Stderr = s
	}
	status := map[string]any{"metadata": map[string]any{}, "status": "Success"}
	if err := process.Run(); err != nil {
		status["status"], status["message"] = "Failure", err.Error()
		var ended *exec.ExitError
		if errors.As(err, &ended) {
			status["reason"] = "NonZeroExitCode"
			cause := map[string]string{"reason": "ExitCode", "message": strconv.Itoa(ended.ExitCode())}
			status["details"] = map[string]any{"causes": []any{cause}}
		}
	}
	body, _ := json.Marshal(status)
	_, _ = io.WriteString(streams["error"], string(body))
	for _, s := range streams {
		s.Close()
	}
}
