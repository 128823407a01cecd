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

// startSource starts a Source and stops it when the test ends.
func startSource(t *testing.T, options Options) *Source {
	t.Helper()
	s, err := NewSource(options)
	require.NoError(t, err)
	start(t, s)
	return s
}

// startRotator starts a Rotator and stops it when the test ends.
func startRotator(t *testing.T, options Options) *Rotator {
	t.Helper()
	r, err := NewRotator(options)
	require.NoError(t, err)
	start(t, r)
	return r
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
	startRotator(t, c.options())
	sources := []*Source{startSource(t, c.options()), startSource(t, c.options()), startSource(t, c.options())}
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
		assert.NoError(t, err, "by a clock that is behind")
		serials[pair.Leaf.SerialNumber.String()] = true
	}
	assert.Len(t, serials, 3, "each replica has its own leaf")
	roots, canonical := parseRoots(bundle)
	assert.True(t, canonical)
	assert.Len(t, roots, 1, "one CA")
	for _, webhook := range c.mutatingConfiguration().Webhooks {
		assert.Equal(t, string(bundle), string(webhook.ClientConfig.CABundle), webhook.Name)
	}
}

// It uses the real clock, real watches, and lifetimes of seconds.
func TestReplicasRotateSideBySide(t *testing.T) {
	c := newCluster(t)
	o := c.options()
	// A leaf has three seconds left when its renewal is due, and replicas have two
	// seconds to sign with another CA: enough for a busy machine.
	o.CATTL, o.LeafTTL, o.PropagationDelay = 12*time.Second, 9*time.Second, 2*time.Second
	startRotator(t, o)
	sources := []*Source{startSource(t, o), startSource(t, o), startSource(t, o)}
	requireReady(t, sources...)

	authorities := map[string]bool{}
	assert.Eventually(t, func() bool {
		for _, s := range sources {
			// Read the bundle after the leaf: the old root must outlive the leaf in use.
			pair, err := s.GetCertificate(nil)
			require.NoError(t, err)
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM(c.mutatingConfiguration().Webhooks[1].ClientConfig.CABundle)
			_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: "isthmus"})
			if !assert.NoError(t, err) {
				return true
			}
			authorities[pair.Leaf.Issuer.CommonName] = true
		}
		return len(authorities) >= 3
	}, 90*time.Second, 5*time.Millisecond)
}

func TestReadyReportsWhatIsMissing(t *testing.T) {
	t.Run("Start was not called", func(t *testing.T) {
		s, err := NewSource(newCluster(t).options())
		require.NoError(t, err)
		assert.EqualError(t, s.Ready(), "no serving certificate yet: the Secret has not been read yet")
		_, err = s.GetCertificate(&tls.ClientHelloInfo{})
		assert.Error(t, err)
	})
	t.Run("the Secret is created later", func(t *testing.T) {
		c := newCluster(t)
		secrets := c.CoreV1().Secrets(testNamespace)
		require.NoError(t, secrets.Delete(t.Context(), testSecret, metav1.DeleteOptions{}))
		startRotator(t, c.options())
		s := startSource(t, c.options())
		assert.EventuallyWithT(t, func(c *assert.CollectT) {
			assert.EqualError(c, s.Ready(), "no serving certificate yet: secret isthmus-system/isthmus-webhook-ca does not exist; only the chart creates it, empty: run helm upgrade to create it again")
		}, 10*time.Second, 5*time.Millisecond)
		_, err := secrets.Create(t.Context(), newSecret(), metav1.CreateOptions{})
		require.NoError(t, err)
		requireReady(t, s)
	})
	t.Run("the rotator starts later", func(t *testing.T) {
		c := newCluster(t)
		s := startSource(t, c.options())
		assert.EventuallyWithT(t, func(c *assert.CollectT) {
			assert.EqualError(c, s.Ready(), "no serving certificate yet: secret isthmus-system/isthmus-webhook-ca is empty: the isthmus controller has not created the first CA yet")
		}, 10*time.Second, 5*time.Millisecond)
		startRotator(t, c.options())
		requireReady(t, s)
	})
	t.Run("the configuration is created later", func(t *testing.T) {
		c := newCluster(t)
		configurations := c.AdmissionregistrationV1().MutatingWebhookConfigurations()
		require.NoError(t, configurations.Delete(t.Context(), testConfiguration, metav1.DeleteOptions{}))
		startRotator(t, c.options())
		s := startSource(t, c.options())
		assert.EventuallyWithT(t, func(c *assert.CollectT) {
			assert.EqualError(c, s.Ready(), `mutatingwebhookconfiguration "isthmus-webhook" does not exist`)
		}, 10*time.Second, 5*time.Millisecond)
		_, err := configurations.Create(t.Context(), newMutatingConfiguration(), metav1.CreateOptions{})
		require.NoError(t, err)
		requireReady(t, s)
	})
	t.Run("the Secret is deleted under a running replica", func(t *testing.T) {
		c := newCluster(t)
		startRotator(t, c.options())
		s := startSource(t, c.options())
		requireReady(t, s)
		bundle := c.secret().Data[BundleKey]
		require.NoError(t, c.CoreV1().Secrets(testNamespace).Delete(t.Context(), testSecret, metav1.DeleteOptions{}))
		require.Eventually(t, func() bool { _, lastError := s.status(); return lastError != nil }, 10*time.Second, 5*time.Millisecond)
		assert.NoError(t, s.Ready(), "it keeps serving")
		c.editMutatingConfiguration(func(c *admissionregistrationv1.MutatingWebhookConfiguration) {
			c.Webhooks[0].ClientConfig.CABundle = nil
		})
		assert.Eventually(t, func() bool { return bytes.Equal(bundle, c.mutatingConfiguration().Webhooks[0].ClientConfig.CABundle) },
			10*time.Second, 5*time.Millisecond, "the rotator remembers the bundle that leaves in use need")
	})
}

func TestNewRefusesInvalidOptions(t *testing.T) {
	const source, rotator = "serving certificate: ", "webhook's certificate authority: "
	tests := map[string]struct {
		change       func(*Options)
		sourceError  string
		rotatorError string
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
			_, err := NewSource(o)
			assertRefused(t, source, test.sourceError, err)
			_, err = NewRotator(o)
			assertRefused(t, rotator, test.rotatorError, err)
		})
	}
}

// assertRefused asserts the text of an error, or that there is none when want is empty.
func assertRefused(t *testing.T, prefix, want string, err error) {
	t.Helper()
	if want == "" {
		assert.NoError(t, err)
		return
	}
	assert.EqualError(t, err, prefix+want)
}

func TestOnlyTheRotatorNeedsLeaderElection(t *testing.T) {
	c := newCluster(t)
	assert.True(t, startRotator(t, c.options()).NeedLeaderElection())
	assert.False(t, startSource(t, c.options()).NeedLeaderElection())
}

func TestMetricsReportExpiry(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	o := newCluster(t).options()
	startRotator(t, o)
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
	s := startSource(t, o)
	requireReady(t, s)
	values := gather()
	assert.InDelta(t, time.Now().Add(DefaultLeafTTL).Unix(), values["isthmus_webhook_serving_certificate_not_after_timestamp_seconds"], 60)
	assert.InDelta(t, time.Now().Add(DefaultCATTL).Unix(), values["isthmus_webhook_serving_ca_not_after_timestamp_seconds"], 60)

	_, err := NewSource(o)
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
	startRotator(t, o)
	s := startSource(t, o)
	requireReady(t, s)
	secret := c.secret()
	c.editSecret(func(s *corev1.Secret) { s.Data[corev1.TLSCertKey] = s.Data[corev1.TLSPrivateKeyKey] })
	require.Eventually(t, func() bool { return len(c.secret().Data[NextPrivateKeyKey]) > 0 }, 10*time.Second, 5*time.Millisecond)

	ca := s.leaf.Load().issuer
	log.Info("values with keys", "ca", ca, "leaf", s.leaf.Load())
	logged := func() string {
		mu.Lock()
		defer mu.Unlock()
		return lines.String()
	}
	// Both are logged after the write to the Secret.
	for _, line := range []string{"signed a serving certificate", "repaired: "} {
		require.Eventually(t, func() bool { return strings.Contains(logged(), line) }, 10*time.Second, 5*time.Millisecond, line)
	}
	printed := logged()
	for _, verb := range []string{"%s", "%v", "%+v", "%#v", "%d", "%x"} {
		printed += fmt.Sprintf(verb+verb+verb, ca, rotationState{signing: ca, next: ca}, s.leaf.Load())
	}
	assert.NotContains(t, printed, "PRIVATE KEY")
	for _, key := range [][]byte{secret.Data[corev1.TLSPrivateKeyKey], c.secret().Data[NextPrivateKeyKey]} {
		middle := bytes.Split(key, []byte("\n"))[1]
		assert.NotContains(t, printed, string(middle))
	}
}
