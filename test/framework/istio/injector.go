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

// What the injected proxy's image is: a release, as users have it.
const (
	Hub = "docker.io/istio"
	Tag = "1.30.2"
)

// injectorSelector finds the configurations of Istio's chart, its tags included.
const injectorSelector = "app=sidecar-injector"

// Injector is how Istio's own chart, istio-discovery, installs the injector of a
// revision. Nothing of what it renders is changed but what the fields say.
type Injector struct {
	// Tags are revision tags that point here. The tag "default" takes over the
	// namespaces with istio-injection=enabled.
	Tags []string
	// Reinvocation is the policy of all its webhooks. Default: the chart's, Never.
	Reinvocation admissionregistrationv1.ReinvocationPolicyType
	// Prefix is put before the names of its configurations: the API server calls
	// them in the order of their names.
	Prefix string
	// Values are further values of the chart, by their path: "pilot.cni.enabled".
	Values map[string]string
}

// InstallInjector applies what the chart renders of the injector, and returns
// when istiod has written its caBundle there. What was installed for the same
// revision before is removed first. The API server learns of it a moment later.
func (d *Discovery) InstallInjector(ctx context.Context, o Injector) error {
	if err := d.writeInjector(ctx, o); err != nil {
		return err
	}
	return d.awaitBundles(ctx)
}

// RemoveInjector removes the webhooks of the revision. istiod serves on.
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

// Injections is how many pods istiod's injector was asked about.
func (d *Discovery) Injections(ctx context.Context) (float64, error) {
	return scrape.Metric(ctx, "http://"+d.MonitoringAddress+"/metrics", "sidecar_injection_requests_total")
}

// InjectURL is where istiod's injector answers.
func (d *Discovery) InjectURL() string { return "https://" + d.https + "/inject" }

func (d *Discovery) selector() string { return injectorSelector + ",istio.io/rev=" + d.revision() }

// writeInjector applies the ConfigMaps and the configurations.
func (d *Discovery) writeInjector(ctx context.Context, o Injector) error {
	rendered, err := d.renderInjector(ctx, o)
	if err != nil {
		return err
	}
	objects, err := injectorObjects(rendered, o.Prefix)
	if err != nil {
		return err
	}
	if err := d.RemoveInjector(ctx); err != nil {
		return err
	}
	apply := exec.CommandContext(ctx, d.tools.kubectl, "--kubeconfig", d.kubeconfig, "apply", "--server-side", "--force-conflicts", "-f", "-")
	apply.Stdin = bytes.NewReader(objects)
	if out, err := apply.CombinedOutput(); err != nil {
		return fmt.Errorf("apply Istio's injector: %w: %s", err, out)
	}
	return nil
}

// tools are where things are: looking for them takes longer than they do here.
type tools struct{ module, helm, kubectl string }

func (d *Discovery) find(ctx context.Context) error {
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

// renderInjector is what `helm template` says of Istio's chart.
func (d *Discovery) renderInjector(ctx context.Context, o Injector) ([]byte, error) {
	if err := d.find(ctx); err != nil {
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

// injectorObjects keeps what injection needs: the templates, the mesh's
// configuration and the webhooks. The rest is istiod's Deployment and its rights.
func injectorObjects(rendered []byte, prefix string) ([]byte, error) {
	var kept bytes.Buffer
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(rendered), 4096)
	for {
		o := &unstructured.Unstructured{}
		if err := decoder.Decode(&o.Object); errors.Is(err, io.EOF) {
			return kept.Bytes(), nil
		} else if err != nil {
			return nil, fmt.Errorf("read what Istio's chart renders: %w", err)
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
		kept.Write(append(data, '\n'))
	}
}

// awaitBundles returns when every webhook of the revision has a caBundle.
func (d *Discovery) awaitBundles(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		missing, err := d.missingBundle(ctx)
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

// missingBundle names a webhook that has no caBundle yet.
func (d *Discovery) missingBundle(ctx context.Context) (string, error) {
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
