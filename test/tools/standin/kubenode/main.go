// Command kubenode is a stand-in for a node of a cluster, so that guides run without
// images. It does what the kubelet, the container runtime, kube-proxy, the scheduler,
// CoreDNS and a load balancer do, as far as guides depend on it.
//
// A container is a process: the program that the settings name for its image, with the
// arguments, environment, user, volumes and mounts of the pod, its own root folder, and
// the network namespace of its pod. Ports, paths, probes and permissions are therefore
// those of the pod. A pod waits for the same things as on a real node: the Secrets of its
// volumes, its init containers one by one, the startup probes of native sidecars, and
// readiness probes.
//
// The command needs its own network and mount namespaces, which test/guides creates. The
// bridge, the addresses and the mounts end with them.
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

// Settings configure the node.
type Settings struct {
	// Kubeconfig is the path of the admin's kubeconfig.
	Kubeconfig string `json:"kubeconfig"`
	// APIServer is host:port of the API server. Pods reach it through the Service
	// kubernetes.
	APIServer string `json:"apiServer"`
	// Folder holds everything that the node writes. Logs are in its subfolder logs.
	Folder string `json:"folder"`
	// Images are the stand-ins for images.
	Images []Image `json:"images"`
}

// Image is the stand-in for an image.
type Image struct {
	// Repository is the end of the image's name, without its tag: istio/proxyv2, or
	// proxyv2.
	Repository string `json:"repository"`
	// Programs are files of this machine, by their paths in the container.
	Programs map[string]string `json:"programs"`
	// Entrypoint is the path of the program that runs when the pod names none.
	Entrypoint string `json:"entrypoint"`
	// Workload says that the program is ../workload, which gets additional environment
	// variables and the folder of its agent. Default: false.
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

// readSettings reads the settings from a file, or from standard input if path is empty.
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
