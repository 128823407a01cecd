package istio

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
	"github.com/isthmus-mesh/isthmus/test/framework/scrape"
)

// The image of the injected proxy: a release, as users have it.
const (
	Hub = "docker.io/istio"
	Tag = "1.30.2"
)

// injectorSelector selects the webhook configurations of Istio's chart, with its tags.
const injectorSelector = "app=sidecar-injector"

// Injector configures how Istio's chart istio-discovery installs the injector of a
// revision. Only the fields change what the chart renders.
type Injector struct {
	// Tags are the tags of the revision. The tag "default" selects the namespaces with
	// istio-injection=enabled.
	Tags []string
	// Reinvocation is the reinvocation policy of all its webhooks. Default: the chart's,
	// Never.
	Reinvocation admissionregistrationv1.ReinvocationPolicyType
	// Prefix is the prefix of the names of its configurations: the API server calls
	// webhooks in the order of these names.
	Prefix string
	// Values are other values of the chart by path, such as "pilot.cni.enabled".
	Values map[string]string
}

// InstallInjector removes the injector of the revision, applies the one that the chart
// renders, and returns when istiod has written its caBundle. The API server uses it a
// moment later.
func (d *Discovery) InstallInjector(ctx context.Context, o Injector) error {
	if err := d.writeInjector(ctx, o); err != nil {
		return err
	}
	return d.awaitCABundles(ctx)
}

// RemoveInjector removes the webhooks of the revision. istiod continues to serve.
func (d *Discovery) RemoveInjector(ctx context.Context) error {
	configurations := d.Client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	list, err := configurations.List(ctx, metav1.ListOptions{LabelSelector: d.selector()})
	if err != nil {
		return err
	}
	for i := range list.Items {
		err := configurations.Delete(ctx, list.Items[i].Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// InjectionCount is the number of requests to istiod's injector.
func (d *Discovery) InjectionCount(ctx context.Context) (float64, error) {
	return scrape.Metric(ctx, "http://"+d.MonitoringAddress+"/metrics", "sidecar_injection_requests_total")
}

// InjectURL is the URL of istiod's injector.
func (d *Discovery) InjectURL() string { return "https://" + d.https + "/inject" }

func (d *Discovery) selector() string { return injectorSelector + ",istio.io/rev=" + d.revision() }

// writeInjector applies the ConfigMaps and the configurations.
func (d *Discovery) writeInjector(ctx context.Context, o Injector) error {
	rendered, err := d.renderInjector(ctx, o)
	if err != nil {
		return err
	}
	manifests, err := injectorManifests(rendered, o.Prefix)
	if err != nil {
		return err
	}
	if err := d.RemoveInjector(ctx); err != nil {
		return err
	}
	apply := exec.CommandContext(ctx, d.tools.kubectl, "--kubeconfig", d.kubeconfig, "apply", "--server-side", "--force-conflicts", "-f", "-")
	apply.Stdin = bytes.NewReader(manifests)
	if out, err := apply.CombinedOutput(); err != nil {
		return fmt.Errorf("apply Istio's injector: %w: %s", err, out)
	}
	return nil
}

// tools are paths, cached because the lookup takes longer than the use.
type tools struct{ module, helm, kubectl string }

func (d *Discovery) findTools(ctx context.Context) error {
	if d.tools != nil {
		return nil
	}
	found := &tools{}
	var err error
	if found.module, err = Module(ctx); err != nil {
		return err
	}
	if found.helm, err = controlplane.Tool(ctx, "helm"); err != nil {
		return err
	}
	if found.kubectl, err = controlplane.Tool(ctx, "kubectl"); err != nil {
		return err
	}
	d.tools = found
	return nil
}

// renderInjector renders Istio's chart with `helm template`.
func (d *Discovery) renderInjector(ctx context.Context, o Injector) ([]byte, error) {
	if err := d.findTools(ctx); err != nil {
		return nil, err
	}
	tags, err := json.Marshal(append([]string{}, o.Tags...))
	if err != nil {
		return nil, err
	}
	arguments := []string{
		"template", "istiod", filepath.Join(d.tools.module, "manifests", "charts", "istio-control", "istio-discovery"),
		"--namespace", Namespace, "--kube-version", "1.36.0",
		"--set", "revision=" + d.Revision,
		"--set", "istiodRemote.injectionURL=" + d.InjectURL(),
		"--set", "global.hub=" + Hub, "--set", "global.tag=" + Tag,
		"--set", "meshConfig.trustDomain=" + TrustDomain,
		"--set", "meshConfig.defaultConfig.discoveryAddress=" + d.Address,
		"--set-json", "revisionTags=" + string(tags),
	}
	if o.Reinvocation != "" {
		arguments = append(arguments, "--set", "sidecarInjectorWebhook.reinvocationPolicy="+string(o.Reinvocation))
	}
	for path, value := range o.Values {
		arguments = append(arguments, "--set", path+"="+value)
	}
	out, err := exec.CommandContext(ctx, d.tools.helm, arguments...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return nil, fmt.Errorf("render Istio's chart: %w", err)
	}
	return out, nil
}

// injectorManifests filters the manifests that injection needs: the templates, the mesh
// configuration and the webhooks. The others are istiod's Deployment and RBAC.
func injectorManifests(rendered []byte, prefix string) ([]byte, error) {
	var manifests bytes.Buffer
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(rendered), 4096)
	for {
		o := &unstructured.Unstructured{}
		if err := decoder.Decode(&o.Object); errors.Is(err, io.EOF) {
			return manifests.Bytes(), nil
		} else if err != nil {
			return nil, fmt.Errorf("parse the manifests of Istio's chart: %w", err)
		}
		switch o.GetKind() {
		case "ConfigMap":
		case "MutatingWebhookConfiguration":
			o.SetName(prefix + o.GetName())
		default:
			continue
		}
		data, err := json.Marshal(o)
		if err != nil {
			return nil, err
		}
		manifests.Write(append(data, '\n'))
	}
}

// awaitCABundles waits until every webhook of the revision has a caBundle.
func (d *Discovery) awaitCABundles(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		missing, err := d.webhookWithoutCABundle(ctx)
		if err == nil && missing == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("istiod wrote no caBundle into %q: %w", missing, errors.Join(context.Cause(ctx), err))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// webhookWithoutCABundle returns the name of a webhook that has no caBundle, empty when
// there is none.
func (d *Discovery) webhookWithoutCABundle(ctx context.Context) (string, error) {
	list, err := d.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().List(ctx, metav1.ListOptions{LabelSelector: d.selector()})
	if err != nil {
		return "", err
	}
	if len(list.Items) == 0 {
		return "", errors.New("there is no configuration of the injector")
	}
	for _, c := range list.Items {
		for _, w := range c.Webhooks {
			if len(w.ClientConfig.CABundle) == 0 {
				return c.Name + "/" + w.Name, nil
			}
		}
	}
	return "", nil
}
