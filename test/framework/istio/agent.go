package istio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
	"github.com/isthmus-mesh/isthmus/test/framework/process"
)

// AgentOptions configure an Agent.
type AgentOptions struct {
	// Namespace and ServiceAccount are those of the pod. They have to exist. Required.
	Namespace, ServiceAccount string
	// Dir is where the agent writes key.pem, cert-chain.pem and root-cert.pem.
	// Default: a folder that Stop removes.
	Dir string
	// TTL is the lifetime to request. Default 24h, as for an injected sidecar.
	TTL time.Duration
	// Image is the image that the sidecar is rendered for. Its tag has to be the
	// agent's version of Istio. Default: Isthmus' default image.
	Image string
	// Program is the pilot-agent to run. Default: the one that test/tools/cluster
	// builds, of the same Istio as istiod.
	Program string
	// Env is added to the agent's environment.
	Env map[string]string
}

// Agent is a running pilot-agent without Envoy.
type Agent struct {
	// Dir is the directory with the certificates.
	Dir string
	// Ready is the URL of its readiness probe.
	Ready string
	// StartDuration is the time from the start until the agent was ready.
	StartDuration time.Duration

	istiod    *Istiod
	namespace string
	started   time.Time
	folder    string
	log       string
	process   *process.Process
}

// StartAgent launches a pilot-agent and waits until it is ready.
func StartAgent(ctx context.Context, i *Istiod, o AgentOptions) (*Agent, error) {
	a, err := LaunchAgent(ctx, i, o)
	if err != nil {
		return nil, err
	}
	if err := a.AwaitReady(ctx); err != nil {
		return nil, errors.Join(err, a.Stop())
	}
	return a, nil
}

// LaunchAgent starts a pilot-agent with the arguments and the environment of the
// sidecar that Isthmus injects. It does not wait until the agent is ready.
func LaunchAgent(ctx context.Context, i *Istiod, o AgentOptions) (*Agent, error) {
	program, err := o.Program, error(nil)
	if program == "" {
		program, err = controlplane.Tool(ctx, "pilot-agent")
	}
	if err != nil {
		return nil, err
	}
	a := &Agent{Dir: o.Dir, istiod: i, namespace: o.Namespace}
	if a.folder, err = os.MkdirTemp(i.folder, "agent-"); err != nil {
		return nil, err
	}
	if a.Dir == "" {
		a.Dir = filepath.Join(a.folder, "certs")
	}
	if err := os.MkdirAll(a.Dir, 0o755); err != nil {
		return nil, errors.Join(err, a.Stop())
	}
	if err := a.writeVolumes(ctx, o); err != nil {
		return nil, errors.Join(err, a.Stop())
	}
	sidecar, err := a.render(o)
	if err != nil {
		return nil, errors.Join(err, a.Stop())
	}
	a.started = time.Now()
	a.log = filepath.Join(i.logs, fmt.Sprintf("agent-%d.log", i.agents.Add(1)))
	env := containerEnvironment(sidecar, o)
	arguments := strings.ReplaceAll(strings.Join(sidecar.Args, "\n"), "$(POD_NAMESPACE)", o.Namespace)
	a.process, err = process.Start(process.Options{
		Name: "pilot-agent", Program: program, Arguments: strings.Split(arguments, "\n"), Env: env, Dir: a.folder, Log: a.log,
	})
	if err != nil {
		return nil, errors.Join(err, a.Stop())
	}
	return a, nil
}

// AwaitReady waits until the agent is ready. It fails when the agent has ended.
func (a *Agent) AwaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := a.process.AwaitReady(ctx, func(ctx context.Context) error { return checkOK(ctx, a.Ready) }); err != nil {
		return err
	}
	a.StartDuration = time.Since(a.started)
	return nil
}

// render returns the injected container and sets Ready.
func (a *Agent) render(o AgentOptions) (corev1.Container, error) {
	addresses, err := process.FreeAddresses(1)
	if err != nil {
		return corev1.Container{}, err
	}
	a.Ready = "http://" + addresses[0] + "/healthz/ready"
	_, text, _ := strings.Cut(addresses[0], ":")
	port, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return corev1.Container{}, err
	}
	template, err := patches.LoadSidecar()
	if err != nil {
		return corev1.Container{}, err
	}
	sidecar, err := template.Render(patches.Params{
		Mesh: patches.Mesh{
			DiscoveryAddress: a.istiod.Address, TrustDomain: TrustDomain, ClusterID: ClusterID, ProxyImage: o.Image,
		}.WithDefaults(),
		CertDir: a.Dir,
		CertTTL: o.TTL,
		// Only the status port is opened, so several agents can run on one machine.
		HostNetwork: true,
		Overrides:   patches.Overrides{StatusPort: int32(port)},
	})
	if err != nil {
		return corev1.Container{}, err
	}
	return sidecar.Container, nil
}

// containerEnvironment is the container's environment as the kubelet resolves it.
func containerEnvironment(container corev1.Container, o AgentOptions) []string {
	fields := map[string]string{
		"metadata.name": "pod-" + o.ServiceAccount, "metadata.namespace": o.Namespace,
		"spec.serviceAccountName": o.ServiceAccount, "spec.nodeName": "node",
		"status.podIP": "127.0.0.1", "status.hostIP": "127.0.0.1",
	}
	var env []string
	for _, e := range container.Env {
		switch {
		case e.ValueFrom == nil:
			env = append(env, e.Name+"="+e.Value)
		case e.ValueFrom.FieldRef != nil:
			env = append(env, e.Name+"="+fields[e.ValueFrom.FieldRef.FieldPath])
		}
	}
	for name, value := range o.Env {
		env = append(env, name+"="+value)
	}
	return env
}

// writeVolumes writes the files that the kubelet would mount, below the working folder: the
// agent uses relative paths.
func (a *Agent) writeVolumes(ctx context.Context, o AgentOptions) error {
	token, err := a.istiod.Client.CoreV1().ServiceAccounts(o.Namespace).CreateToken(ctx, o.ServiceAccount, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"istio-ca"}, ExpirationSeconds: ptr.To[int64](43200)},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("token of %s/%s: %w", o.Namespace, o.ServiceAccount, err)
	}
	if err := a.write("tokens/istio-token", []byte(token.Status.Token)); err != nil {
		return err
	}
	return a.RefreshRoots(ctx)
}

// RefreshRoots writes the roots that are published in the agent's namespace, as the kubelet
// does about every minute.
func (a *Agent) RefreshRoots(ctx context.Context) error {
	roots, err := a.istiod.Roots(ctx, a.namespace)
	if err != nil {
		return err
	}
	return a.write("istio/root-cert.pem", roots)
}

func (a *Agent) write(name string, content []byte) error {
	path := filepath.Join(a.folder, "var", "run", "secrets", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Kill ends the agent with SIGKILL. Its files stay.
func (a *Agent) Kill() { a.process.End(syscall.SIGKILL) }

// Stop ends the agent and removes its folders, except AgentOptions.Dir.
func (a *Agent) Stop() error {
	if a.process != nil {
		a.process.End(syscall.SIGTERM)
	}
	return os.RemoveAll(a.folder)
}

// Dump writes the end of the agent's log.
func (a *Agent) Dump(w io.Writer) {
	_, _ = fmt.Fprintf(w, "--- pilot-agent:\n%s\n", controlplane.Tail(a.log, 30))
}
