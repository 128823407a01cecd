package serving

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func (c *cluster) options() Options {
	return Options{
		Client: c, Namespace: testNamespace, SecretName: testSecret, ConfigurationName: testConfiguration,
		DNSNames: ServiceNames("isthmus", testNamespace),
	}
}

// run starts a Source that ends with the test.
func run(t *testing.T, options Options) *Source {
	t.Helper()
	s, err := New(options)
	require.NoError(t, err)
	start(t, s)
	return s
}

// keep starts a Keeper that ends with the test.
func keep(t *testing.T, options Options) *Keeper {
	t.Helper()
	k, err := NewKeeper(options)
	require.NoError(t, err)
	start(t, k)
	return k
}

func start(t *testing.T, runnable interface{ Start(context.Context) error }) {
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	ended.Go(func() { assert.NoError(t, runnable.Start(ctx), "Start returns nil when its context ends") })
	t.Cleanup(func() {
		cancel()
		ended.Wait()
	})
}

func requireReady(t *testing.T, sources ...*Source) {
	t.Helper()
	for _, s := range sources {
		require.EventuallyWithT(t, func(c *assert.CollectT) { assert.NoError(c, s.Ready()) }, 20*time.Second, 5*time.Millisecond)
	}
}

func TestReplicasShareOneAuthority(t *testing.T) {
	c := newCluster(t)
	keep(t, c.options())
	sources := []*Source{run(t, c.options()), run(t, c.options()), run(t, c.options())}
	requireReady(t, sources...)

	bundle := c.secret().Data[BundleKey]
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(bundle))
	serials := map[string]bool{}
	for _, s := range sources {
		pair, err := s.GetCertificate(nil)
		require.NoError(t, err)
		_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: "isthmus." + testNamespace + ".svc"})
		assert.NoError(t, err)
		_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: "isthmus", CurrentTime: time.Now().Add(-leafBackdate + time.Minute)})
		assert.NoError(t, err, "to a clock that is behind")
		serials[pair.Leaf.SerialNumber.String()] = true
	}
	assert.Len(t, serials, 3, "each replica has a leaf of its own")
	roots, whole := readRoots(bundle)
	assert.True(t, whole)
	assert.Len(t, roots, 1, "one CA")
	for _, webhook := range c.configuration().Webhooks {
		assert.Equal(t, string(bundle), string(webhook.ClientConfig.CABundle), webhook.Name)
	}
}

// The real clock, real watches, and lives of seconds.
func TestReplicasRotateSideBySide(t *testing.T) {
	c := newCluster(t)
	o := c.options()
	// A leaf has three seconds left when its renewal is due, and replicas two to
	// sign with another CA: a busy machine must not be late.
	o.CATTL, o.LeafTTL, o.PropagationDelay = 12*time.Second, 9*time.Second, 2*time.Second
	keep(t, o)
	sources := []*Source{run(t, o), run(t, o), run(t, o)}
	requireReady(t, sources...)

	authorities := map[string]bool{}
	assert.Eventually(t, func() bool {
		for _, s := range sources {
			// The bundle after the leaf: the old root must outlive the last look at it.
			pair, err := s.GetCertificate(nil)
			require.NoError(t, err)
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM(c.configuration().Webhooks[1].ClientConfig.CABundle)
			_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: "isthmus"})
			if !assert.NoError(t, err) {
				return true
			}
			authorities[pair.Leaf.Issuer.CommonName] = true
		}
		return len(authorities) >= 3
	}, 90*time.Second, 5*time.Millisecond)
}

func TestReadySaysWhatIsMissing(t *testing.T) {
	t.Run("nothing was started", func(t *testing.T) {
		s, err := New(newCluster(t).options())
		require.NoError(t, err)
		assert.EqualError(t, s.Ready(), "no serving certificate yet: nothing was looked at yet")
		_, err = s.GetCertificate(&tls.ClientHelloInfo{})
		assert.Error(t, err)
	})
	t.Run("the Secret is not there, then is", func(t *testing.T) {
		c := newCluster(t)
		secrets := c.CoreV1().Secrets(testNamespace)
		require.NoError(t, secrets.Delete(t.Context(), testSecret, metav1.DeleteOptions{}))
		keep(t, c.options())
		s := run(t, c.options())
		assert.EventuallyWithT(t, func(c *assert.CollectT) {
			assert.EqualError(c, s.Ready(), "no serving certificate yet: secret isthmus-system/isthmus-webhook-ca does not exist; it is created empty by the chart, and by nothing else: helm upgrade brings it back")
		}, 10*time.Second, 5*time.Millisecond)
		_, err := secrets.Create(t.Context(), emptySecret(), metav1.CreateOptions{})
		require.NoError(t, err)
		requireReady(t, s)
	})
	t.Run("no keeper runs, then one does", func(t *testing.T) {
		c := newCluster(t)
		s := run(t, c.options())
		assert.EventuallyWithT(t, func(c *assert.CollectT) {
			assert.EqualError(c, s.Ready(), "no serving certificate yet: secret isthmus-system/isthmus-webhook-ca is empty: the isthmus controller has not created the first CA yet")
		}, 10*time.Second, 5*time.Millisecond)
		keep(t, c.options())
		requireReady(t, s)
	})
	t.Run("the configuration is not there, then is", func(t *testing.T) {
		c := newCluster(t)
		configurations := c.AdmissionregistrationV1().MutatingWebhookConfigurations()
		require.NoError(t, configurations.Delete(t.Context(), testConfiguration, metav1.DeleteOptions{}))
		keep(t, c.options())
		s := run(t, c.options())
		assert.EventuallyWithT(t, func(c *assert.CollectT) {
			assert.EqualError(c, s.Ready(), `mutatingwebhookconfiguration "isthmus-webhook" does not exist`)
		}, 10*time.Second, 5*time.Millisecond)
		_, err := configurations.Create(t.Context(), bareConfiguration(), metav1.CreateOptions{})
		require.NoError(t, err)
		requireReady(t, s)
	})
	t.Run("the Secret is deleted under a running replica", func(t *testing.T) {
		c := newCluster(t)
		keep(t, c.options())
		s := run(t, c.options())
		requireReady(t, s)
		bundle := c.secret().Data[BundleKey]
		require.NoError(t, c.CoreV1().Secrets(testNamespace).Delete(t.Context(), testSecret, metav1.DeleteOptions{}))
		require.Eventually(t, func() bool { _, problem := s.status(); return problem != nil }, 10*time.Second, 5*time.Millisecond)
		assert.NoError(t, s.Ready(), "it serves on")
		c.editConfiguration(func(c *admissionregistrationv1.MutatingWebhookConfiguration) {
			c.Webhooks[0].ClientConfig.CABundle = nil
		})
		assert.Eventually(t, func() bool { return bytes.Equal(bundle, c.configuration().Webhooks[0].ClientConfig.CABundle) },
			10*time.Second, 5*time.Millisecond, "the keeper knows what leaves in use are verified by")
	})
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	const source, keeper = "serving certificate: ", "webhook's certificate authority: "
	tests := map[string]struct {
		change      func(*Options)
		ofSource    string
		ofTheKeeper string
	}{
		"no client":            {func(o *Options) { o.Client = nil }, "no client given", "no client given"},
		"no namespace":         {func(o *Options) { o.Namespace = "" }, "no namespace given", "no namespace given"},
		"no secret":            {func(o *Options) { o.SecretName = "" }, "no secret name given", "no secret name given"},
		"no configuration":     {func(o *Options) { o.ConfigurationName = "" }, "no configuration name given", "no configuration name given"},
		"no names":             {func(o *Options) { o.DNSNames = nil }, "no DNS name or IP address given: the API server could not verify the certificate", ""},
		"negative leaf":        {func(o *Options) { o.LeafTTL = -time.Hour }, "leaf lifetime -1h0m0s is negative", ""},
		"negative CA":          {func(o *Options) { o.CATTL, o.PropagationDelay = -time.Hour, -time.Hour }, "", "CA lifetime -1h0m0s is negative\npropagation delay -1h0m0s is negative"},
		"delay too long":       {func(o *Options) { o.PropagationDelay = 2200 * time.Hour }, "", "propagation delay 2200h0m0s does not fit four times into the CA lifetime 8760h0m0s"},
		"two things at a time": {func(o *Options) { o.Namespace, o.SecretName = "", "" }, "no namespace given\nno secret name given", "no namespace given\nno secret name given"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o := newCluster(t).options()
			test.change(&o)
			_, err := New(o)
			assertRefused(t, source, test.ofSource, err)
			_, err = NewKeeper(o)
			assertRefused(t, keeper, test.ofTheKeeper, err)
		})
	}
}

// assertRefused wants this error, and none when there is nothing to say.
func assertRefused(t *testing.T, who, what string, err error) {
	t.Helper()
	if what == "" {
		assert.NoError(t, err)
		return
	}
	assert.EqualError(t, err, who+what)
}

func TestOnlyTheKeeperIsForALeader(t *testing.T) {
	c := newCluster(t)
	assert.True(t, keep(t, c.options()).NeedLeaderElection())
	assert.False(t, run(t, c.options()).NeedLeaderElection())
}

func TestMetricsTellExpiry(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	o := newCluster(t).options()
	keep(t, o)
	o.Registerer = registry
	gather := func() map[string]float64 {
		families, err := registry.Gather()
		require.NoError(t, err)
		values := map[string]float64{}
		for _, family := range families {
			values[family.GetName()] = family.GetMetric()[0].GetGauge().GetValue()
		}
		return values
	}
	s := run(t, o)
	requireReady(t, s)
	values := gather()
	assert.InDelta(t, time.Now().Add(DefaultLeafTTL).Unix(), values["isthmus_webhook_serving_certificate_not_after_timestamp_seconds"], 60)
	assert.InDelta(t, time.Now().Add(DefaultCATTL).Unix(), values["isthmus_webhook_serving_ca_not_after_timestamp_seconds"], 60)

	_, err := New(o)
	assert.ErrorContains(t, err, "serving certificate: register metrics: ")
}

func TestNoKeyIsPrinted(t *testing.T) {
	var mu sync.Mutex
	var lines strings.Builder
	log := funcr.New(func(prefix, args string) {
		mu.Lock()
		defer mu.Unlock()
		lines.WriteString(prefix + args + "\n")
	}, funcr.Options{Verbosity: 10})
	c := newCluster(t)
	o := c.options()
	o.Log = log
	keep(t, o)
	s := run(t, o)
	requireReady(t, s)
	secret := c.secret()
	c.editSecret(func(s *corev1.Secret) { s.Data[corev1.TLSCertKey] = s.Data[corev1.TLSPrivateKeyKey] })
	require.Eventually(t, func() bool { return len(c.secret().Data[NextPrivateKeyKey]) > 0 }, 10*time.Second, 5*time.Millisecond)

	p := s.leaf.Load().issuer
	log.Info("a pair as a value", "pair", p, "leaf", s.leaf.Load())
	said := func() string {
		mu.Lock()
		defer mu.Unlock()
		return lines.String()
	}
	// Both are said after the write that the Secret shows.
	for _, line := range []string{"signed a serving certificate", "mended: "} {
		require.Eventually(t, func() bool { return strings.Contains(said(), line) }, 10*time.Second, 5*time.Millisecond, line)
	}
	printed := said()
	for _, verb := range []string{"%s", "%v", "%+v", "%#v", "%d", "%x"} {
		printed += fmt.Sprintf(verb+verb+verb, p, state{signing: p, next: p}, s.leaf.Load())
	}
	assert.NotContains(t, printed, "PRIVATE KEY")
	for _, key := range [][]byte{secret.Data[corev1.TLSPrivateKeyKey], c.secret().Data[NextPrivateKeyKey]} {
		middle := bytes.Split(key, []byte("\n"))[1]
		assert.NotContains(t, printed, string(middle))
	}
}
