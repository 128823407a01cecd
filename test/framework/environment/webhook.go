package environment

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os/exec"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
	"github.com/isthmus-mesh/isthmus/test/framework/process"
)

// Webhook starts a replica of `isthmus webhook`, as Controller does, and applies
// the chart's configurations of webhooks, with nothing changed but the address.
// A controller has to run: it keeps the CA.
func (w *World) Webhook(ctx context.Context, flags ...string) (*Server, error) {
	addresses, err := process.FreeAddresses(1)
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(addresses[0])
	if err != nil {
		return nil, err
	}
	if err := w.configure(ctx, addresses[0]); err != nil {
		return nil, err
	}
	own := []string{"--host=" + host, "--port=" + port, "--serving-name=" + host, "--shutdown-delay=0s"}
	s, err := w.serve(ctx, "webhook", append(own, flags...))
	if err != nil {
		return nil, err
	}
	s.Reviews = "https://" + addresses[0]
	return s, nil
}

// configure has the API server call a webhook at an address.
func (w *World) configure(ctx context.Context, address string) error {
	var objects bytes.Buffer
	for _, rendered := range w.configurations {
		o := rendered.DeepCopy()
		webhooks, _, err := unstructured.NestedSlice(o.Object, "webhooks")
		if err != nil {
			return err
		}
		for i := range webhooks {
			webhook, ok := webhooks[i].(map[string]any)
			if !ok {
				return fmt.Errorf("%s: webhooks[%d] is a %T", o.GetName(), i, webhooks[i])
			}
			path, _, err := unstructured.NestedString(webhook, "clientConfig", "service", "path")
			if err != nil {
				return err
			}
			webhook["clientConfig"] = map[string]any{"url": "https://" + address + path}
		}
		if err := unstructured.SetNestedSlice(o.Object, webhooks, "webhooks"); err != nil {
			return err
		}
		data, err := json.Marshal(o)
		if err != nil {
			return err
		}
		objects.Write(append(data, '\n'))
	}
	kubectl, err := controlplane.Tool(ctx, "kubectl")
	if err != nil {
		return err
	}
	apply := exec.CommandContext(ctx, kubectl, "--kubeconfig", w.Plane.Kubeconfig, "apply", "--server-side", "-f", "-")
	apply.Stdin = &objects
	if out, err := apply.CombinedOutput(); err != nil {
		return fmt.Errorf("apply the configurations of the webhooks: %w: %s", err, out)
	}
	return nil
}
