// kas is a Kubernetes API server for tests in one process: etcd on a Unix socket, and kube-apiserver.
//
// Usage: kas FOLDER [flags of kube-apiserver]. The data is in FOLDER; a later start with the same folder goes on with
// it. etcd does not call fsync, so data survives a killed process but not a crash of the machine.
package main

import (
	"log"
	"net/url"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() {
	folder := os.Args[1]
	client, peer := socket(folder, "etcd.sock"), socket(folder, "peer.sock")
	config := embed.NewConfig()
	config.Dir = filepath.Join(folder, "etcd")
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.UnsafeNoFsync = true
	config.LogLevel = "error"
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		log.Fatal(err)
	}
	<-etcd.Server.ReadyNotify()
	os.Args = append([]string{"kube-apiserver", "--etcd-servers=" + client.String()}, os.Args[2:]...)
	code := cli.Run(app.NewAPIServerCommand())
	etcd.Close() // os.Exit runs nothing that is deferred
	os.Exit(code)
}

func socket(folder, name string) url.URL {
	return url.URL{Scheme: "unix", Path: filepath.Join(folder, name)}
}
