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

// startTimeout is how long a start may take on a busy machine.
const startTimeout = 90 * time.Second

// Server is a running program of Isthmus.
type Server struct {
	*process.Process
	// Log is the path of its log.
	Log string
	// ReviewURL is the base URL of a webhook's reviews, without a path.
	ReviewURL string

	health, metrics string
}

// StartController starts a replica of `isthmus controller` with the arguments of the
// chart's Deployment and the given flags, as the chart's service account. The replica
// becomes leader if no other one is.
func (env *Environment) StartController(ctx context.Context, flags ...string) (*Server, error) {
	return env.startServer(ctx, "controller", flags)
}

// startServer starts a subcommand of isthmus with the arguments and the service account
// of its Deployment in the chart, and returns when it is ready.
func (env *Environment) startServer(ctx context.Context, subcommand string, flags []string) (*Server, error) {
	deployment, ok := env.deployments["isthmus-"+subcommand]
	if !ok {
		return nil, fmt.Errorf("the chart renders no Deployment isthmus-%s", subcommand)
	}
	kubeconfig, err := env.WriteKubeconfig(ctx, Namespace, "isthmus-"+subcommand, "")
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
		arguments = append(arguments, strings.ReplaceAll(a, "/etc/isthmus/", env.folder+"/"))
	}
	arguments = append(arguments, "--kubeconfig="+kubeconfig,
		"--health-probe-bind-address="+addresses[0], "--metrics-bind-address="+addresses[1])
	env.serverCount++
	s := &Server{Log: filepath.Join(env.folder, fmt.Sprintf("%s-%d.log", subcommand, env.serverCount)), health: addresses[0], metrics: addresses[1]}
	s.Process, err = process.Start(process.Options{
		Name: "isthmus " + subcommand, Program: env.ProgramPath("isthmus"), Arguments: append(arguments, flags...),
		Env: []string{fmt.Sprintf("GOMEMLIMIT=%d", deployment.Resources.Limits.Memory().Value())}, Log: s.Log,
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err = s.AwaitReady(ctx, func(ctx context.Context) error {
		body, err := scrape.Get(ctx, "http://"+s.health+"/readyz?verbose")
		if err != nil {
			return fmt.Errorf("%w: %s", err, body)
		}
		return nil
	})
	return s, err
}

// StartPublisher starts isthmus-publish as the service account of an edge, which has the
// permissions that the controller binds. roots is the path of a file with the mesh's
// roots; server is the URL of a proxy to the API server, empty for the API server itself.
func (env *Environment) StartPublisher(ctx context.Context, namespace, account, dir, roots, server string) (*Server, error) {
	kubeconfig, err := env.WriteKubeconfig(ctx, namespace, account, server)
	if err != nil {
		return nil, err
	}
	env.serverCount++
	s := &Server{Log: filepath.Join(env.folder, fmt.Sprintf("publisher-%d.log", env.serverCount))}
	s.Process, err = process.Start(process.Options{
		Name: "isthmus-publish", Program: env.ProgramPath("isthmus-publish"), Log: s.Log,
		Arguments: []string{
			"--dir=" + dir, "--secret=istio-certs", "--trust-domain=cluster.local", "--roots-file=" + roots,
			"--kubeconfig=" + kubeconfig, "--check-every=2s", "--log-level=debug",
		},
		Env: []string{"POD_NAMESPACE=" + namespace, "SERVICE_ACCOUNT=" + account, "POD_NAME=front", "GOMEMLIMIT=48MiB"},
	})
	return s, err
}

// WriteKubeconfig writes a kubeconfig with a token of a service account and returns its
// path. server is the URL of the API server; empty is the administrator's.
func (env *Environment) WriteKubeconfig(ctx context.Context, namespace, account, server string) (string, error) {
	token, err := env.CreateToken(ctx, namespace, account)
	if err != nil {
		return "", err
	}
	cluster := clientcmdapi.NewCluster()
	cluster.Server, cluster.CertificateAuthorityData = env.Admin.Host, env.Admin.CAData
	if env.Admin.CAFile != "" {
		cluster.CertificateAuthority = env.Admin.CAFile
	}
	if server != "" {
		cluster.Server = server
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = cluster
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: token}
	config.Contexts["c"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u", Namespace: namespace}
	config.CurrentContext = "c"
	path := filepath.Join(env.folder, fmt.Sprintf("%s-%d.kubeconfig", account, time.Now().UnixNano()))
	return path, clientcmd.WriteToFile(*config, path)
}

// CreateToken returns a token of a service account for the API server, valid for two hours.
func (env *Environment) CreateToken(ctx context.Context, namespace, account string) (string, error) {
	t, err := env.Kube.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](7200)},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("token of %s/%s: %w", namespace, account, err)
	}
	return t.Status.Token, nil
}

// ConfigForToken returns a client configuration that authenticates by the token alone.
func (env *Environment) ConfigForToken(token string) *rest.Config {
	config := rest.AnonymousClientConfig(env.Admin)
	config.BearerToken, config.QPS = token, -1
	return config
}

// Stop ends the server with SIGTERM, as the kubelet does.
func (s *Server) Stop() { s.End(syscall.SIGTERM) }

// Kill ends the server with SIGKILL.
func (s *Server) Kill() { s.End(syscall.SIGKILL) }

// Metric returns the sum of a metric's samples that have all of the labels, each written
// as in the exposition format: `reason="expired"`.
func (s *Server) Metric(ctx context.Context, name string, labels ...string) (float64, error) {
	return scrape.Metric(ctx, "http://"+s.metrics+"/metrics", name, labels...)
}

// Memory returns the resident memory of the process in bytes: the total (VmRSS), and the
// anonymous part that is not backed by the program's file (RssAnon).
func (s *Server) Memory() (resident, anonymous int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID()))
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
