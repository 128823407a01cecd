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

// StartWebhook starts a replica of `isthmus webhook`, as StartController does, and applies
// the chart's webhook configurations with nothing changed but the address. It needs a
// running controller, which writes the CA.
func (env *Environment) StartWebhook(ctx context.Context, flags ...string) (*Server, error) {
	addresses, err := process.FreeAddresses(1)
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(addresses[0])
	if err != nil {
		return nil, err
	}
	if err := env.applyConfigurations(ctx, addresses[0]); err != nil {
		return nil, err
	}
	addressFlags := []string{"--host=" + host, "--port=" + port, "--serving-name=" + host, "--shutdown-delay=1s"}
	s, err := env.startServer(ctx, "webhook", append(addressFlags, flags...))
	if err != nil {
		return nil, err
	}
	s.ReviewURL = "https://" + addresses[0]
	return s, nil
}

// applyConfigurations makes the API server call the webhook at this address.
func (env *Environment) applyConfigurations(ctx context.Context, address string) error {
	var manifests bytes.Buffer
	for _, rendered := range env.configurations {
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
		manifests.Write(append(data, '\n'))
	}
	kubectl, err := controlplane.Tool(ctx, "kubectl")
	if err != nil {
		return err
	}
	apply := exec.CommandContext(ctx, kubectl, "--kubeconfig", env.Plane.Kubeconfig, "apply", "--server-side", "-f", "-")
	apply.Stdin = &manifests
	if out, err := apply.CombinedOutput(); err != nil {
		return fmt.Errorf("apply the configurations of the webhooks: %w: %s", err, out)
	}
	return nil
}
