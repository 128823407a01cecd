// Command kubenode stands in for a node of a cluster, so that test/guides runs where no
// images are to be had: it takes what kubelet, container runtime, kube-proxy,
// scheduler, CoreDNS and a load balancer do, as far as the guides use them.
//
// A container is a process: the program that the settings name for its image, with
// the arguments, environment, user, volumes and mounts of the pod, a root folder of
// its own, and the network namespace of its pod. So every port, path, probe and
// permission is the one that the pod asks for. What a pod waits for, it waits for
// here: Secrets of its volumes, init containers one by one, startup probes of native
// sidecars, readiness.
//
// It runs in a network and mount namespace of its own (test/guides makes them):
// the bridge, the addresses and the mounts vanish with it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

// Settings say what the node knows beside the cluster.
type Settings struct {
	// Kubeconfig is the administrator's.
	Kubeconfig string `json:"kubeconfig"`
	// APIServer is host:port of the API server, which pods reach as the Service
	// kubernetes.
	APIServer string `json:"apiServer"`
	// Folder holds everything the node writes; logs are in its folder logs.
	Folder string `json:"folder"`
	// Images are the images that can run here.
	Images []Image `json:"images"`
}

// Image is what stands for an image.
type Image struct {
	// Repository is the end of its name, without tag: istio/proxyv2, or proxyv2.
	Repository string `json:"repository"`
	// Programs are files of this machine, by their path in the container.
	Programs map[string]string `json:"programs"`
	// Entrypoint is the path of the program that runs when the pod names none.
	Entrypoint string `json:"entrypoint"`
	// Workload is true for what ../workload stands for: it is told its ports and
	// where it meets an agent.
	Workload bool `json:"workload,omitempty"`
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "container" {
		fmt.Fprintln(os.Stderr, "start the container:", becomeContainer())
		os.Exit(127)
	}
	if len(os.Args) == 2 && os.Args[1] == "loopback" {
		if _, err := raiseLoopback(); err != nil {
			log.Fatal(err)
		}
		return
	}
	path := flag.String("settings", "", "`file` with the settings")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *path)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, path string) error {
	s, err := readSettings(path)
	if err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig)
	if err != nil {
		return err
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	network, err := newNetwork()
	if err != nil {
		return err
	}
	if err := register(ctx, client); err != nil {
		return err
	}
	p := newProxy(client, s.APIServer)
	if err := p.start(ctx); err != nil {
		return err
	}
	if err := serveDNS(p); err != nil {
		return err
	}
	n := &node{settings: s, client: client, network: network, pods: map[string]*pod{}}
	return n.run(ctx)
}

// readSettings reads the settings: of standard input where no file is named.
func readSettings(path string) (s Settings, err error) {
	in := os.Stdin
	if path != "" {
		if in, err = os.Open(path); err != nil {
			return s, err
		}
		defer func() { _ = in.Close() }()
	}
	data, err := io.ReadAll(in)
	if err != nil {
		return s, err
	}
	data, err = yaml.YAMLToJSONStrict(data)
	if err != nil {
		return s, fmt.Errorf("settings: %w", err)
	}
	err = json.Unmarshal(data, &s)
	return s, err
}
