package admission

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
	"github.com/isthmus-mesh/isthmus/test/framework/scrape"
)

// replica is a process of the webhook or of the controller.
type replica struct {
	port, health, metrics int
	command               *exec.Cmd
	log                   string
	done                  chan struct{}
	exitErr               error
	stopped               bool
}

// startReplica runs the webhook with the arguments of the chart's Deployment, as the
// chart's service account, and waits until it is ready. The given flags override those of
// the chart.
func (e *environment) startReplica(ctx context.Context, flags ...string) (*replica, error) {
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	r := &replica{port: ports[0], health: ports[1], metrics: ports[2]}
	testFlags := []string{"--host=127.0.0.1", "--port=" + strconv.Itoa(r.port), "--serving-name=127.0.0.1", "--shutdown-delay=1s"}
	if err := e.launch(ctx, r, webhookName, append(testFlags, flags...)); err != nil {
		return nil, err
	}
	return r, await(ctx, r.ready)
}

// startController runs the controller in the same way, but does not wait. The controller
// writes the CA and the caBundle, without which no replica becomes ready. It would become
// ready itself only with the roots of an Istio.
func (e *environment) startController(ctx context.Context, flags ...string) (*replica, error) {
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	r := &replica{health: ports[0], metrics: ports[1]}
	return r, e.launch(ctx, r, controllerName, flags)
}

func (e *environment) launch(ctx context.Context, r *replica, name string, flags []string) error {
	arguments, err := e.arguments(name)
	if err != nil {
		return err
	}
	kubeconfig, err := e.serviceAccountKubeconfig(ctx, name)
	if err != nil {
		return err
	}
	loopback := func(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
	arguments = append(arguments,
		"--health-probe-bind-address="+loopback(r.health), "--metrics-bind-address="+loopback(r.metrics),
		"--kubeconfig="+kubeconfig, "--log-level=debug",
	)
	r.log = filepath.Join(e.folder, fmt.Sprintf("%s-%d.log", name, r.health))
	out, err := os.Create(r.log)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	// No context: the test ends it by a signal and checks its exit status.
	r.command = exec.Command(e.binary, append(arguments, flags...)...)
	r.command.Stdout, r.command.Stderr = out, out
	if err := r.command.Start(); err != nil {
		return err
	}
	r.done = make(chan struct{})
	go func() {
		r.exitErr = r.command.Wait()
		close(r.done)
	}()
	e.replicas = append(e.replicas, r)
	return nil
}

// ready returns nil if the readiness probe succeeds.
func (r *replica) ready(ctx context.Context) error {
	select {
	case <-r.done:
		return fmt.Errorf("the server ended: %w", errors.Join(r.exitErr, errors.New(r.logTail())))
	default:
	}
	body, err := scrape.Get(ctx, fmt.Sprintf("http://127.0.0.1:%d/readyz?verbose", r.health))
	if err != nil {
		return fmt.Errorf("not ready: %w: %s", err, body)
	}
	return nil
}

// stop sends SIGTERM, as the kubelet does, and waits for the exit. A status other than 0 is
// an error.
func (r *replica) stop(ctx context.Context) error {
	if r.stopped {
		return nil
	}
	r.stopped = true
	if err := r.command.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, awaitTimeout)
	defer cancel()
	select {
	case <-r.done:
		return r.exitErr
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("the process with log %s does not end", r.log), r.command.Process.Kill())
	}
}

func (r *replica) logTail() string { return controlplane.Tail(r.log, 60) }

// counter returns the sum of a metric's samples that have all of the labels, each written
// as in the exposition format: `reason="injected"`.
func (r *replica) counter(ctx context.Context, metric string, labels ...string) (float64, error) {
	return scrape.Metric(ctx, fmt.Sprintf("http://127.0.0.1:%d/metrics", r.metrics), metric, labels...)
}

// serviceAccountKubeconfig writes a kubeconfig with only a token of one of the chart's
// service accounts, so that the process has exactly the permissions of its roles.
func (e *environment) serviceAccountKubeconfig(ctx context.Context, name string) (string, error) {
	seconds := int64(3600)
	token, err := e.client.CoreV1().ServiceAccounts(releaseNamespace).CreateToken(ctx, name,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("token of service account %s: %w", name, err)
	}
	config := rest.CopyConfig(e.config)
	if err := rest.LoadTLSFiles(config); err != nil {
		return "", err
	}
	path := filepath.Join(e.folder, name+".kubeconfig")
	return path, writeKubeconfig(path, config.Host, config.CAData, token.Status.Token)
}

func writeKubeconfig(path, server string, ca []byte, token string) error {
	return clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"test": {Server: server, CertificateAuthorityData: ca}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"webhook": {Token: token}},
		Contexts:       map[string]*clientcmdapi.Context{"test": {Cluster: "test", AuthInfo: "webhook"}},
		CurrentContext: "test",
	}, path)
}

// freePorts returns ports that were free a moment ago. It keeps them open until it has
// found all of them, so that they differ.
func freePorts(count int) ([]int, error) {
	if count == 0 {
		return nil, nil
	}
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	defer func() { _ = listener.Close() }()
	_, text, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return nil, err
	}
	others, err := freePorts(count - 1)
	return append(others, port), err
}

// caBundle returns the caBundle of the webhook configuration.
func (e *environment) caBundle(ctx context.Context) ([]byte, error) {
	configuration, err := e.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(ctx, configurationName, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return configuration.Webhooks[0].ClientConfig.CABundle, nil
}

// clearCA resets the Secret of the CA to its state after the installation, so that the next
// controller creates a new CA.
func (e *environment) clearCA(ctx context.Context) error {
	secrets := e.client.CoreV1().Secrets(releaseNamespace)
	secret, err := secrets.Get(ctx, caSecretName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	secret.Data, secret.Annotations = nil, nil
	_, err = secrets.Update(ctx, secret, metav1.UpdateOptions{})
	return err
}
