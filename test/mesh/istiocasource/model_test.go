package istiocasource_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/certs/istioca"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/test/framework/istio"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

const (
	// samples is how often each request is measured.
	samples = 200
	// rateDuration is how long a rate is measured.
	rateDuration = 3 * time.Second
	// authorityCalls is how many requests the source sends to an authority at a time.
	authorityCalls = 4
)

type latency struct {
	P50 time.Duration `json:"p50"`
	P99 time.Duration `json:"p99"`
}

// measured is the model of internal/controller's simulation.
type measured struct {
	Where                 string             `json:"where"`
	Requests              map[string]latency `json:"requests"`
	RequestsPerSecond     float64            `json:"requestsPerSecond"`
	Issue                 latency            `json:"issue"`
	CertificatesPerSecond float64            `json:"certificatesPerSecond"`
	Calls                 int                `json:"calls"`
}

// BenchmarkModel measures the API server and istiod for the simulation of the controller,
// and writes the result as JSON into the file ISTHMUS_MEASUREMENTS. `make simulate` runs it.
func BenchmarkModel(b *testing.B) {
	unlimited := rest.CopyConfig(admin)
	unlimited.QPS = -1
	kube, err := kubernetes.NewForConfig(unlimited)
	require.NoError(b, err)
	secrets, err := publish.NewClient(unlimited)
	require.NoError(b, err)
	const namespace = "model"
	require.NoError(b, istiod.CreateNamespace(b.Context(), namespace, nil, "edge"))
	pem, err := istiod.Roots(b.Context(), namespace)
	require.NoError(b, err)
	roots, err := certs.ParseCertificates(pem)
	require.NoError(b, err)
	id, err := certs.Identity(istio.TrustDomain, namespace, "edge")
	require.NoError(b, err)
	source, err := istioca.New(istioca.Options{Client: kube, Roots: func() ([]*x509.Certificate, error) { return roots, nil }})
	require.NoError(b, err)
	b.Cleanup(source.Close)
	request := certs.Request{
		Namespace: namespace, ServiceAccount: "edge", CAAddress: istiod.Address, ClusterID: istio.ClusterID,
		TTL: 30 * time.Minute, Want: certs.Want{ID: id, Roots: roots},
	}
	require.Eventually(b, func() bool { _, err := source.Bundle(b.Context(), request); return err == nil }, time.Minute, 10*time.Millisecond)
	issue := func(ctx context.Context) error { _, err := source.Bundle(ctx, request); return err }
	token := func(ctx context.Context) error {
		_, err := kube.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, "edge", &authenticationv1.TokenRequest{
			Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"istio-ca"}, ExpirationSeconds: ptr.To[int64](600)},
		}, metav1.CreateOptions{})
		return err
	}
	var serial atomic.Int64
	for b.Loop() {
		bundle, err := source.Bundle(b.Context(), request)
		require.NoError(b, err)
		get := func(ctx context.Context) error { _, err := secrets.Get(ctx, namespace, "istio-certs"); return err }
		apply := func(ctx context.Context) error {
			_, err := secrets.Apply(ctx, &corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "istio-certs", Annotations: map[string]string{"n": fmt.Sprint(serial.Add(1))}},
				Type:       corev1.SecretTypeTLS,
				Data:       map[string][]byte{"tls.crt": bundle.Chain(), "tls.key": bundle.Key(), "ca.crt": bundle.Roots(), "root-cert.pem": bundle.Roots()},
			}, true)
			return err
		}
		nudge := func(ctx context.Context) error {
			secret, err := secrets.Get(ctx, namespace, "istio-certs")
			if err != nil {
				return err
			}
			_, err = secrets.Annotate(ctx, secret, policy.NudgeKey, fmt.Sprint(serial.Add(1)))
			return err
		}
		list := func(ctx context.Context) error {
			_, err := kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{Limit: 500})
			return err
		}
		event := func(ctx context.Context) error {
			_, err := kube.EventsV1().Events(namespace).Create(ctx, &eventsv1.Event{
				ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "istio-certs-"}, EventTime: metav1.NowMicro(), Type: "Normal",
				Reason: "Published", Action: "Publish", ReportingController: "isthmus", ReportingInstance: "model", Note: bundle.String(),
				Regarding: corev1.ObjectReference{Kind: "Secret", Namespace: namespace, Name: "istio-certs"},
			}, metav1.CreateOptions{})
			return err
		}
		m := measured{Calls: authorityCalls, Requests: map[string]latency{}, Where: fmt.Sprintf("measured on %d processors, which API server and istiod share", runtime.NumCPU())}
		m.Requests["apply a Secret"] = measure(b, apply)
		m.Requests["nudge a Secret"] = measure(b, nudge)
		m.Requests["get a Secret"] = measure(b, get)
		m.Requests["create a token"] = measure(b, token)
		m.Requests["list the pods of a namespace"] = measure(b, list)
		m.Requests["create an Event"] = measure(b, event)
		// A request for a certificate creates a token first.
		m.Issue = measure(b, issue)
		m.Issue.P50 = max(m.Issue.P50-m.Requests["create a token"].P50, time.Millisecond)
		m.Issue.P99 = max(m.Issue.P99-m.Requests["create a token"].P50, m.Issue.P50)
		m.RequestsPerSecond = rate(b, 12, get)
		m.CertificatesPerSecond = rate(b, authorityCalls, issue)
		data, err := json.MarshalIndent(m, "", "  ")
		require.NoError(b, err)
		b.Logf("%s", data)
		if path := os.Getenv("ISTHMUS_MEASUREMENTS"); path != "" {
			require.NoError(b, os.WriteFile(path, data, 0o644))
		}
	}
}

// measure sends a request again and again.
func measure(b *testing.B, request func(context.Context) error) latency {
	b.Helper()
	require.NoError(b, request(b.Context()))
	took := make([]time.Duration, samples)
	for i := range took {
		start := time.Now()
		require.NoError(b, request(b.Context()))
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	return latency{took[samples/2].Round(10 * time.Microsecond), took[samples*99/100].Round(10 * time.Microsecond)}
}

// rate is how many requests a second are answered when several clients send them.
func rate(b *testing.B, clients int, request func(context.Context) error) float64 {
	b.Helper()
	var workers sync.WaitGroup
	var answered atomic.Int64
	start := time.Now()
	for range clients {
		workers.Go(func() {
			for time.Since(start) < rateDuration {
				if request(b.Context()) == nil {
					answered.Add(1)
				}
			}
		})
	}
	workers.Wait()
	return float64(answered.Load()) / time.Since(start).Seconds()
}
