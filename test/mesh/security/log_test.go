package security

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/test/framework/environment"
	"github.com/isthmus-mesh/isthmus/test/framework/istio"
	"github.com/isthmus-mesh/isthmus/test/framework/scrape"
)

// secrets are all texts that must not appear in any output, in each possible encoding.
type secrets struct {
	mu    sync.Mutex
	texts map[string]string
	keys  map[string]bool
}

// keyPattern finds keys and tokens that existed only in memory: PEM, the DER of PKCS#8 and
// of SEC 1 in base64 and in hex, and JWTs. A JWT begins with the base64 of {".
var keyPattern = regexp.MustCompile(`BEGIN [A-Z ]*PRIVATE KEY|MIGHAgEAMBMG|MHcCAQEE|MII[A-Za-z0-9+/]{2}[A-Za-z0-9+/]*BADANBgkqhkiG9w0BAQEFAASC|3081870201003013|30770201|eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}|Bearer [A-Za-z0-9]`)

func (s *secrets) add(description, text string) {
	if len(text) < 8 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.texts[text] = description
}

// addKey adds a private key: the lines of its PEM, all of it in base64, its DER in hex.
func (s *secrets) addKey(description string, text []byte) {
	s.mu.Lock()
	if s.keys[string(text)] {
		s.mu.Unlock()
		return
	}
	s.keys[string(text)] = true
	s.mu.Unlock()
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "-----") {
			s.add(description+", a line", line)
		}
	}
	s.add(description+", in base64", base64.StdEncoding.EncodeToString(text)[:40])
	if block, _ := pem.Decode(text); block != nil && len(block.Bytes) > 60 {
		s.add(description+", in hex", hex.EncodeToString(block.Bytes)[:40])
		s.add(description+", in base64", base64.StdEncoding.EncodeToString(block.Bytes))
		s.add(description+", as Go prints bytes", strings.Trim(fmt.Sprintf("%d", block.Bytes[40:60]), "[]"))
	}
}

// watch adds every private key in any Secret, in every version.
func (s *secrets) watch(t testing.TB) {
	t.Helper()
	w, err := env.Kube.CoreV1().Secrets("").Watch(context.Background(), metav1.ListOptions{})
	require.NoError(t, err)
	done := make(chan struct{})
	t.Cleanup(func() { w.Stop(); <-done })
	go func() {
		defer close(done)
		for e := range w.ResultChan() {
			if secret, ok := e.Object.(*corev1.Secret); ok && e.Type != watch.Error {
				for name, data := range secret.Data {
					if bytes.Contains(data, []byte("PRIVATE KEY")) {
						s.addKey(secret.Namespace+"/"+secret.Name+" "+name, data)
					}
				}
			}
		}
	}()
}

// output is a text that a program has written or returned.
type output struct{ where, text string }

// search reports which outputs hold a secret. It prints the place, never the secret.
func (s *secrets) search(t testing.TB, all []output) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, source := range all {
		for text, description := range s.texts {
			if strings.Contains(source.text, text) {
				t.Errorf("%s holds %s", source.where, description)
			}
		}
		if at := keyPattern.FindStringIndex(source.text); at != nil {
			t.Errorf("%s holds what looks like a key or a token, after %q", source.where, source.text[max(0, at[0]-200):at[0]])
		}
	}
}

// TestTheSearchFinds shows that the search would find each form.
func TestTheSearchFinds(t *testing.T) {
	token, err := env.CreateToken(t.Context(), "default", createAccount(t))
	require.NoError(t, err)
	for _, text := range []string{
		"-----BEGIN EC PRIVATE KEY-----", `"data":"MIGHAgEAMBMGByqGSM49AgEG"`, "3081870201003013", "Authorization: Bearer abc", token,
	} {
		assert.Regexp(t, keyPattern, text)
	}
	assert.NotRegexp(t, keyPattern, `{"level":"info","msg":"published","serial":"98B94C10FCF70B84C7879AA382F86509"}`)
}

func createAccount(t testing.TB) string {
	t.Helper()
	const name = "searched"
	_, err := env.Kube.CoreV1().ServiceAccounts("default").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	require.NoError(t, err)
	return name
}

// marker replaces the key in a damaged Secret.
const marker = "c3RvbGVuIGtleSBvZiBhIHN0cmFuZ2Vy"

// TestNoKeyIsSaid runs everything at the highest verbosity while Secrets are issued,
// renewed, deleted, overwritten, corrupted and refused, and the API server denies requests
// and is down. Then it searches every output for every key and every token.
func TestNoKeyIsSaid(t *testing.T) {
	t.Parallel()
	d := sharedServers(t)
	s := &secrets{texts: map[string]string{}, keys: map[string]bool{}}
	s.watch(t)
	s.add("the key of a spoilt Secret", marker)
	apiServer := env.StartAPIServerProxy(t)

	// The controller publishes for one edge. For the other its pod publishes, with the real
	// agent, through a proxy to the API server.
	ns := env.CreateNamespace(t, nil, "edge")
	history := env.WatchSecret(t, ns, environment.Identity(t, ns, "edge"))
	env.CreateEdge(t, ns, "front", "edge")
	history.AwaitSerials(t, 1, timeout)
	agents := env.CreateNamespace(t, map[string]string{"isthmus.dev/source": "agent"}, "edge")
	env.CreateEdge(t, agents, "front", "edge")
	require.Eventually(t, func() bool {
		_, err := env.Kube.CoreV1().ConfigMaps(agents).Get(t.Context(), istio.RootConfigMap, metav1.GetOptions{})
		return err == nil
	}, timeout, pollInterval)
	agent, err := istio.StartAgent(t.Context(), env.Istiod, istio.AgentOptions{Namespace: agents, ServiceAccount: "edge", TTL: 20 * time.Second})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, agent.Stop()) })
	publisher, err := env.StartPublisher(t.Context(), agents, "edge", agent.Dir, env.RootsFile(t), apiServer.URL())
	require.NoError(t, err)
	t.Cleanup(publisher.Kill)
	awaitSecret(t, agents)

	// The Secret is deleted, overwritten, corrupted, and immutable.
	api := env.Kube.CoreV1().Secrets(ns)
	patch := func(text string) {
		_, err := api.Patch(t.Context(), "istio-certs", types.MergePatchType, []byte(text), metav1.PatchOptions{})
		require.NoError(t, err)
	}
	require.NoError(t, api.Delete(t.Context(), "istio-certs", metav1.DeleteOptions{}))
	history.AwaitSerials(t, 2, timeout)
	replacement, err := json.Marshal(map[string]any{"data": map[string][]byte{
		"tls.key": []byte("-----BEGIN PRIVATE KEY-----\n" + marker + "\n-----END PRIVATE KEY-----\n"),
	}})
	require.NoError(t, err)
	patch(string(replacement))
	history.AwaitSerials(t, 3, timeout)
	patch(`{"data":{"tls.crt":"` + base64.StdEncoding.EncodeToString([]byte(marker)) + `"}}`)
	history.AwaitSerials(t, 4, timeout)

	// A policy denies the write, with a message of its own.
	denySecrets(t, ns)
	require.NoError(t, api.Delete(t.Context(), "istio-certs", metav1.DeleteOptions{}))
	awaitLog(t, d.controller, "no Secret may be written here")
	require.NoError(t, env.Kube.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Delete(t.Context(), "deny-"+ns, metav1.DeleteOptions{}))
	history.AwaitSerials(t, 5, timeout)
	immutable := env.CreateNamespace(t, nil, "edge")
	_, err = env.Kube.CoreV1().Secrets(immutable).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "istio-certs", Annotations: map[string]string{"isthmus.dev/adopt": "true"}},
		Immutable:  ptr.To(true), StringData: map[string]string{"tls.key": marker},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	env.CreateEdge(t, immutable, "front", "edge")

	// The API server is down for the publisher, and comes back.
	apiServer.Close()
	awaitLog(t, publisher, "connect")
	apiServer.Open()

	// Valid and invalid reviews of pods that contain keys.
	c := client(t, true)
	var all []output
	for i, pod := range []string{
		edgePodJSON(`"nodeName":"` + marker + `",`),
		edgePodJSON(`"activeDeadlineSeconds":"` + marker + `",`),
		strings.Replace(edgePodJSON(""), `"name":"ambassador"`, `"name":"ambassador","env":[{"name":"TOKEN","value":"`+marker+`"}]`, 1),
		edgePodJSON(`"containers":"` + marker + `",`),
	} {
		a, err := sendReview(t.Context(), c, d.webhook.ReviewURL+"/inject/namespace", strings.NewReader(reviewJSON(ns, pod)))
		require.NoError(t, err)
		all = append(all, output{fmt.Sprintf("the answer to review %d", i), a.body})
	}
	history.AwaitSerials(t, 6, timeout) // a renewal that was due

	for name, server := range map[string]*environment.Server{"the controller": d.controller, "the webhook": d.webhook, "the publisher": publisher} {
		text, err := os.ReadFile(server.Log)
		require.NoError(t, err)
		require.NotEmpty(t, text, name)
		all = append(all, output{name + "'s log", string(text)})
		if server == publisher {
			continue
		}
		for _, url := range []string{server.MetricsURL() + "/metrics", server.HealthURL() + "/readyz?verbose", server.HealthURL() + "/healthz?verbose"} {
			text, err := scrape.Get(t.Context(), url)
			require.NoError(t, err)
			all = append(all, output{name + "'s " + url, text})
		}
	}
	events, err := env.Kube.EventsV1().Events("").List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	require.NotEmpty(t, events.Items)
	for _, e := range events.Items {
		text, err := json.Marshal(e)
		require.NoError(t, err)
		all = append(all, output{"Event " + e.Reason, string(text)})
	}
	pods, err := env.Kube.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	text, err := json.Marshal(pods)
	require.NoError(t, err)
	all = append(all, output{"the pods", string(text)})
	t.Logf("%d private keys, %d texts, searched for in %d places", len(s.keys), len(s.texts), len(all))
	assert.GreaterOrEqual(t, len(s.keys), 8)
	s.search(t, all)
}

// denySecrets makes the API server refuse every write of a Secret in a namespace.
func denySecrets(t testing.TB, namespace string) {
	t.Helper()
	api, name := env.Kube.AdmissionregistrationV1(), "deny-"+namespace
	all := admissionregistrationv1.RuleWithOperations{
		Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
		Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"secrets"}},
	}
	_, err := api.ValidatingAdmissionPolicies().Create(t.Context(), &admissionregistrationv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionregistrationv1.MatchResources{ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{RuleWithOperations: all}}},
			MatchConditions:  []admissionregistrationv1.MatchCondition{{Name: "here", Expression: "request.namespace == '" + namespace + "'"}},
			Validations:      []admissionregistrationv1.Validation{{Expression: "false", Message: "no Secret may be written here"}},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = api.ValidatingAdmissionPolicyBindings().Create(t.Context(), &admissionregistrationv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: name, ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		_, err := env.Kube.CoreV1().Secrets(namespace).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "probe"}}, metav1.CreateOptions{DryRun: dryRun})
		assert.ErrorContains(c, err, "no Secret may be written here")
	}, timeout, pollInterval)
}

// awaitLog waits until a server has logged a text.
func awaitLog(t testing.TB, s *environment.Server, words string) {
	t.Helper()
	require.Eventually(t, func() bool {
		text, err := os.ReadFile(s.Log)
		return err == nil && bytes.Contains(text, []byte(words))
	}, timeout, pollInterval, "%q in %s", words, s.Log)
}

// TestNoFlagIsLouder checks that debug is the highest log level. The higher ones of klog and
// client-go, which print requests and tokens, cannot be set.
func TestNoFlagIsLouder(t *testing.T) {
	for _, arguments := range [][]string{
		{"isthmus", "webhook", "--v=9"}, {"isthmus", "controller", "-v=9"}, {"isthmus", "controller", "--zap-log-level=10"},
		{"isthmus", "webhook", "--log-level=9"}, {"isthmus", "controller", "--log-level=trace"},
		{"isthmus-publish", "--v=9"}, {"isthmus-publish", "--dir=d", "--secret=s", "--trust-domain=t", "--namespace=n", "--service-account=a", "--log-level=9"},
	} {
		if arguments[0] == "isthmus" {
			arguments = append(arguments, "--namespace=n", "--ca-secret=s")
		}
		out, err := exec.CommandContext(t.Context(), env.ProgramPath(arguments[0]), arguments[1:]...).CombinedOutput()
		assert.Error(t, err, arguments)
		assert.Regexp(t, `unknown (shorthand )?flag|want info or debug`, string(out), arguments)
	}
}

// TestNoSecretIsRepeated checks that the command line prints nothing of a Secret that is in
// the same file as the workloads, whatever is wrong with the file.
func TestNoSecretIsRepeated(t *testing.T) {
	secret := "apiVersion: v1\nkind: Secret\nmetadata: {name: istio-certs}\nstringData:\n  tls.key: |\n    -----BEGIN PRIVATE KEY-----\n    " + marker + "\n"
	for name, text := range map[string]string{
		"a Secret":            secret,
		"one with a bad type": strings.Replace(secret, "stringData:", "stringData: [a]\ndata:", 1),
		"one that is cut off": secret + "  other: \"" + marker,
		"one with a tab":      secret + "\tother: " + marker,
		"one in JSON":         `{"apiVersion":"v1","kind":"Secret","data":{"tls.key":"` + marker + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "in.yaml")
			require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
			for _, command := range []string{"inject", "uninject", "adopt"} {
				var stderr bytes.Buffer
				run := exec.CommandContext(t.Context(), env.ProgramPath("isthmus"), command, "-f", file)
				run.Stderr = &stderr
				_ = run.Run() // the file may be no manifest
				assert.NotContains(t, stderr.String(), marker, command)
			}
		})
	}
}
