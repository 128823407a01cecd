package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	"github.com/isthmus-mesh/isthmus/patches"
)

func TestDiscoverPrefersExplicitSettings(t *testing.T) {
	client := fake.NewClientset(&corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "istio-system", Name: "istio"},
		Data:       map[string]string{"mesh": "trustDomain: corp.example\n"},
	}, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "istio-system", Name: "istio-sidecar-injector"},
		Data:       map[string]string{"values": `{"global": {"multiCluster": {"clusterName": "east"}}}`},
	})
	flags := clusterFlags{istioNamespace: "istio-system"}
	found, err := flags.discoverWith(context.Background(), client, patches.Mesh{ClusterID: "west"})
	require.NoError(t, err)
	assert.Equal(t, "corp.example", found.settings.Mesh.TrustDomain)
	assert.Equal(t, "west", found.settings.Mesh.ClusterID, "a settings file wins over the cluster")
	used, err := found.mesh("")
	require.NoError(t, err)
	assert.Equal(t, found.settings.Mesh, used)
	_, err = found.mesh("canary")
	require.Error(t, err, "the revision is not installed")
	assert.Contains(t, err.Error(), "canary")

	var info, warn bytes.Buffer
	reportDiscovered(&info, &warn, found.settings)
	assert.Contains(t, info.String(), "mesh: trustDomain=corp.example (")
	assert.Contains(t, info.String(), "mesh: clusterID=west (flag or settings file)\n")
	assert.NotContains(t, info.String(), "(default)")
}

// revisionObjects returns the objects that describe a revision of Istio.
func revisionObjects(revision, trustDomain string) []runtime.Object {
	labels := map[string]string{"istio.io/rev": revision}
	return []runtime.Object{&corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "istio-system", Name: "istio-" + revision, Labels: labels},
		Data:       map[string]string{"mesh": "trustDomain: " + trustDomain},
	}}
}

func TestDiscoverByTag(t *testing.T) {
	tag := &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "istio-revision-tag-prod", Labels: map[string]string{
			"app": "sidecar-injector", "istio.io/rev": "blue", "istio.io/tag": "prod",
		}},
		Webhooks: []admissionv1.MutatingWebhook{{
			Name:              "rev.namespace.sidecar-injector.istio.io",
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"istio.io/rev": "prod"}},
		}},
	}
	client := fake.NewClientset(append(append(revisionObjects("blue", "blue.example"), revisionObjects("green", "green.example")...), tag)...)
	flags := clusterFlags{istioNamespace: "istio-system"}
	_, err := flags.discoverWith(t.Context(), client, patches.Mesh{})
	assert.EqualError(t, err, "istio in namespace istio-system has the revisions blue, green and no default one; its tags are prod (revision blue): "+
		"name one of them with label istio.io/rev, or set the tag default")

	flags.revision = "prod"
	found, err := flags.discoverWith(t.Context(), client, patches.Mesh{})
	require.NoError(t, err)
	for revision, want := range map[string]string{"": "blue.example", "prod": "blue.example", "green": "green.example"} {
		used, err := found.mesh(revision)
		require.NoError(t, err)
		assert.Equal(t, want, used.TrustDomain, revision)
	}
	injector, err := found.injector("prod")
	require.NoError(t, err)
	assert.Equal(t, "istio-revision-tag-prod", injector.Configuration)
	var info, warn bytes.Buffer
	reportDiscovered(&info, &warn, found.settings)
	assert.Contains(t, info.String(), "mesh: revision=blue (tag prod of MutatingWebhookConfiguration istio-revision-tag-prod)\n")

	// Most users may not list the webhooks of a cluster.
	client.PrependReactor("list", "mutatingwebhookconfigurations", func(ktesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(admissionv1.Resource("mutatingwebhookconfigurations"), "", errors.New("no role says so"))
	})
	flags.revision = "green"
	found, err = flags.discoverWith(t.Context(), client, patches.Mesh{})
	require.NoError(t, err)
	warn.Reset()
	reportDiscovered(&info, &warn, found.settings)
	assert.Contains(t, warn.String(), "warning: mesh: istio's revision tags and injectors are not known: ")
	injector, err = found.injector("prod")
	require.NoError(t, err)
	assert.Zero(t, injector)
	flags.revision = "prod"
	_, err = flags.discoverWith(t.Context(), client, patches.Mesh{})
	assert.ErrorContains(t, err, `istio revision "prod" is not installed in namespace istio-system, only blue, green (its tags are not known: `)
}

func TestFromClusterErrors(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	got := isthmus(t, edgePod, "inject", "-f", "-", "--from-cluster", "--kubeconfig", missing)
	assert.Equal(t, output{exitError, "", "error: mesh settings from the cluster: stat " + missing + ": no such file or directory\n"}, got)

	kubeconfig := write(t, "config", "apiVersion: v1\nkind: Config\ncontexts: []\n")
	got = isthmus(t, edgePod, "inject", "-f", "-", "--from-cluster", "--kubeconfig", kubeconfig, "--context", "prod")
	assert.Equal(t, output{exitError, "", "error: mesh settings from the cluster: context \"prod\" does not exist\n"}, got)
}

func TestWantsColour(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	assert.False(t, wantsColour(&bytes.Buffer{}))
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	assert.False(t, wantsColour(file), "a file is not a terminal")
}
