package environment

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/test/framework/process"
	"github.com/isthmus-mesh/isthmus/test/framework/scrape"
)

// patience is how long a start may take on a busy machine.
const patience = 90 * time.Second

// Server is one of our programs, running.
type Server struct {
	*process.Process
	// Log is the path of its log.
	Log string
	// Reviews is the address that a webhook answers reviews at, before the path.
	Reviews string

	health, metrics string
}

// Controller starts a replica of `isthmus controller`: with the arguments of the
// chart's Deployment, as the chart's service account. It may become leader or
// not. flags are added.
func (w *World) Controller(ctx context.Context, flags ...string) (*Server, error) {
	return w.serve(ctx, "controller", flags)
}

// serve starts a server of the chart: a subcommand of isthmus, with the arguments
// and the service account of its Deployment. It returns when it is ready.
func (w *World) serve(ctx context.Context, subcommand string, flags []string) (*Server, error) {
	deployment, ok := w.deployments["isthmus-"+subcommand]
	if !ok {
		return nil, fmt.Errorf("the chart renders no Deployment isthmus-%s", subcommand)
	}
	kubeconfig, err := w.Kubeconfig(ctx, Namespace, "isthmus-"+subcommand, "")
	if err != nil {
		return nil, err
	}
	addresses, err := process.FreeAddresses(2)
	if err != nil {
		return nil, err
	}
	arguments := make([]string, 0, len(deployment.Args)+len(flags)+3)
	for _, a := range deployment.Args {
		a = strings.ReplaceAll(a, "$(POD_NAMESPACE)", Namespace)
		arguments = append(arguments, strings.ReplaceAll(a, "/etc/isthmus/", w.folder+"/"))
	}
	arguments = append(arguments, "--kubeconfig="+kubeconfig,
		"--health-probe-bind-address="+addresses[0], "--metrics-bind-address="+addresses[1])
	w.started++
	s := &Server{Log: filepath.Join(w.folder, fmt.Sprintf("%s-%d.log", subcommand, w.started)), health: addresses[0], metrics: addresses[1]}
	s.Process, err = process.Start(process.Options{
		Name: "isthmus " + subcommand, Program: w.Program("isthmus"), Arguments: append(arguments, flags...),
		Env: []string{fmt.Sprintf("GOMEMLIMIT=%d", deployment.Resources.Limits.Memory().Value())}, Log: s.Log,
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = s.Await(ctx, func(ctx context.Context) error {
		body, err := scrape.Get(ctx, "http://"+s.health+"/readyz?verbose")
		if err != nil {
			return fmt.Errorf("%w: %s", err, body)
		}
		return nil
	})
	return s, err
}

// Publisher starts an isthmus-publish as a service account of an edge, which has
// the rights that the controller binds. roots is a file with the mesh's roots;
// server is the address of a proxy for the API server; empty is the API server itself.
func (w *World) Publisher(ctx context.Context, namespace, account, dir, roots, server string) (*Server, error) {
	kubeconfig, err := w.Kubeconfig(ctx, namespace, account, server)
	if err != nil {
		return nil, err
	}
	w.started++
	s := &Server{Log: filepath.Join(w.folder, fmt.Sprintf("publisher-%d.log", w.started))}
	s.Process, err = process.Start(process.Options{
		Name: "isthmus-publish", Program: w.Program("isthmus-publish"), Log: s.Log,
		Arguments: []string{
			"--dir=" + dir, "--secret=istio-certs", "--trust-domain=cluster.local", "--roots-file=" + roots,
			"--kubeconfig=" + kubeconfig, "--check-every=2s", "--log-level=debug",
		},
		Env: []string{"POD_NAMESPACE=" + namespace, "SERVICE_ACCOUNT=" + account, "POD_NAME=front", "GOMEMLIMIT=48MiB"},
	})
	return s, err
}

// Kubeconfig writes a kubeconfig with a token of a service account.
func (w *World) Kubeconfig(ctx context.Context, namespace, account, server string) (string, error) {
	token, err := w.Token(ctx, namespace, account)
	if err != nil {
		return "", err
	}
	cluster := clientcmdapi.NewCluster()
	cluster.Server, cluster.CertificateAuthorityData = w.Admin.Host, w.Admin.CAData
	if w.Admin.CAFile != "" {
		cluster.CertificateAuthority = w.Admin.CAFile
	}
	if server != "" {
		cluster.Server = server
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = cluster
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: token}
	config.Contexts["c"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u", Namespace: namespace}
	config.CurrentContext = "c"
	path := filepath.Join(w.folder, fmt.Sprintf("%s-%d.kubeconfig", account, time.Now().UnixNano()))
	return path, clientcmd.WriteToFile(*config, path)
}

// Token is one of a service account for the API server.
func (w *World) Token(ctx context.Context, namespace, account string) (string, error) {
	t, err := w.Kube.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](7200)},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("token of %s/%s: %w", namespace, account, err)
	}
	return t.Status.Token, nil
}

// As is how to reach the API server with a token.
func (w *World) As(token string) *rest.Config {
	config := rest.AnonymousClientConfig(w.Admin)
	config.BearerToken, config.QPS = token, -1
	return config
}

// Stop ends the server as the kubelet does.
func (s *Server) Stop() { s.End(syscall.SIGTERM) }

// Kill ends it without a warning.
func (s *Server) Kill() { s.End(syscall.SIGKILL) }

// Metric sums the samples of a metric whose labels contain all of these texts,
// each as in the exposition: `reason="expired"`.
func (s *Server) Metric(ctx context.Context, name string, labels ...string) (float64, error) {
	return scrape.Metric(ctx, "http://"+s.metrics+"/metrics", name, labels...)
}

// Memory is the resident memory of the process, in bytes: all of it, and the
// part that is not shared with the file of the program.
func (s *Server) Memory() (resident, anonymous int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.ID()))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			continue
		}
		kib, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			continue
		}
		switch fields[0] {
		case "VmRSS:":
			resident = kib << 10
		case "RssAnon:":
			anonymous = kib << 10
		}
	}
	return resident, anonymous, nil
}
