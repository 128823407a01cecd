// Command istiocni is a stand-in for the agent of istio-cni on a node that needs no
// privileges. It decides with istio-cni's own code and the selectors of its chart which
// pods are in ambient mode, and writes the annotation that istio-cni writes after it has
// redirected their traffic. It redirects nothing: there is no ztunnel.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"istio.io/istio/cni/pkg/util"
)

// interval is how often all pods are checked.
const interval = 300 * time.Millisecond

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	var selectors []util.EnablementSelector
	if err := yaml.Unmarshal([]byte(os.Getenv("AMBIENT_ENABLEMENT_SELECTOR")), &selectors); err != nil {
		return fmt.Errorf("AMBIENT_ENABLEMENT_SELECTOR: %w", err)
	}
	enabled, err := util.NewCompiledEnablementSelectors(selectors)
	if err != nil {
		return err
	}
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	server := &http.Server{Addr: ":8000", Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), ReadHeaderTimeout: time.Second}
	go func() { log.Print(server.ListenAndServe()) }()
	excluded := strings.Split(os.Getenv("EXCLUDE_NAMESPACES"), ",")
	for {
		if err := enroll(ctx, client, enabled, excluded); err != nil {
			log.Print(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(interval):
		}
	}
}

// enroll adds istio-cni's annotation to running pods that are in ambient mode, and removes
// it from pods that no longer are.
func enroll(ctx context.Context, client kubernetes.Interface, enabled *util.CompiledEnablementSelectors, excluded []string) error {
	namespaces, err := client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	labels := map[string]map[string]string{}
	for _, ns := range namespaces.Items {
		labels[ns.Name] = ns.Labels
	}
	pods, err := client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var errs []error
	for i := range pods.Items {
		pod := &pods.Items[i]
		if pod.Status.PodIP == "" || pod.DeletionTimestamp != nil || slices.Contains(excluded, pod.Namespace) {
			continue
		}
		errs = append(errs, update(client, pod, enabled.Matches(pod, labels[pod.Namespace])))
	}
	return errors.Join(errs...)
}

func update(client kubernetes.Interface, pod *corev1.Pod, wanted bool) error {
	var err error
	switch has := util.PodFullyEnrolled(pod); {
	case wanted && !has:
		log.Printf("%s/%s: enrolled", pod.Namespace, pod.Name)
		err = util.AnnotateEnrolledPod(client, &pod.ObjectMeta)
	case !wanted && has:
		log.Printf("%s/%s: no longer enrolled", pod.Namespace, pod.Name)
		err = util.AnnotateUnenrollPod(client, &pod.ObjectMeta)
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
