// Command hollow is a kubelet for tests: Kubernetes' own, at the version that
// go.mod pins, as its kubemark assembles it, over a container runtime that only
// pretends. So the kubelet's code decides which containers start, when, and what
// the pod's status says, and no container ever runs. Kubernetes' own fakes stand
// in for the runtime, mounts, cgroups and cAdvisor; the prober is the real one,
// which kubemark's kubelet lacks.
//
// Every pod has the address 127.0.0.1, so a test answers probes itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	app "k8s.io/kubernetes/cmd/kubelet/app/options"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	cadvisor "k8s.io/kubernetes/pkg/kubelet/cadvisor/testing"
	"k8s.io/kubernetes/pkg/kubelet/cm"
	"k8s.io/kubernetes/pkg/kubemark"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintf(os.Stderr, "hollow-kubelet: %v\n", err)
		os.Exit(1)
	}
}

// options say which node to be, and what to pretend.
type options struct {
	kubeconfig, node, folder, ledger string
	images                           behaviour
}

func parse(arguments []string) (options, error) {
	o := options{images: behaviour{}}
	flags := flag.NewFlagSet("hollow-kubelet", flag.ContinueOnError)
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "path of the kubeconfig (required)")
	flags.StringVar(&o.node, "node", "hollow", "name of the Node")
	flags.StringVar(&o.folder, "folder", "", "folder for the kubelet's files (required)")
	flags.StringVar(&o.ledger, "ledger", "", "file that tells what the kubelet asked of the runtime, a line of JSON each (required)")
	flags.Func("refuse", "image that cannot be pulled; may be repeated", o.images.refuse)
	flags.Func("hang", "image that is pulled for ever; may be repeated", o.images.hang)
	flags.Func("exit", "IMAGE=DURATION: its containers exit with status 1 after that time; may be repeated", o.images.exit)
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	for name, value := range map[string]string{"kubeconfig": o.kubeconfig, "folder": o.folder, "ledger": o.ledger} {
		if value == "" {
			return o, fmt.Errorf("--%s is required", name)
		}
	}
	return o, nil
}

// run is a kubelet until the context ends.
func run(ctx context.Context, arguments []string) error {
	o, err := parse(arguments)
	if err != nil {
		return err
	}
	access, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		return err
	}
	access.QPS = -1
	client, err := kubernetes.NewForConfig(access)
	if err != nil {
		return err
	}
	book, err := os.Create(o.ledger)
	if err != nil {
		return err
	}
	pretended := pretend(o.images, &ledger{out: book})

	flags, config, err := configure(o)
	if err != nil {
		return err
	}
	k := kubemark.NewHollowKubelet(flags, config, client, client, &cadvisor.Fake{NodeName: o.node}, pretended.images(), pretended, cm.NewStubContainerManager())
	// Nil means the kubelet's own.
	k.KubeletDeps.ProbeManager = nil
	go k.Run(ctx)
	<-ctx.Done()
	return nil
}

// configure is kubemark's configuration, with what would reach beyond the folder
// or hold pods up turned off.
func configure(o options) (*app.KubeletFlags, *kubeletconfig.KubeletConfiguration, error) {
	flags, config := kubemark.GetHollowKubeletConfig(&kubemark.HollowKubeletOptions{
		NodeName: o.node,
		MaxPods:  110,
		// In a cluster that was given, nobody else's pods come here.
		RegisterWithTaints: []corev1.Taint{{Key: "isthmus.dev/hollow", Effect: corev1.TaintEffectNoSchedule}},
	})
	// It makes folders of its own under /tmp, whatever TMPDIR says.
	if err := os.RemoveAll(flags.RootDirectory); err != nil {
		return nil, nil, err
	}
	flags.RootDirectory = filepath.Join(o.folder, "root")
	config.PodLogsDir = filepath.Join(o.folder, "logs")
	config.StaticPodPath = ""
	config.EnableServer = false
	config.MakeIPTablesUtilChains = false
	// Pods do not wait for each other's images, nor for a rate of pulls.
	config.SerializeImagePulls, config.RegistryPullQPS = false, 0
	return flags, config, nil
}
