package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/isthmus-mesh/isthmus/patches"
)

func TestDiscover(t *testing.T) {
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
	require.Error(t, err, "a revision that a pod asks for and nobody runs")
	assert.Contains(t, err.Error(), "canary")

	var info, warn bytes.Buffer
	reportDiscovered(&info, &warn, found.settings)
	assert.Contains(t, info.String(), "mesh: trustDomain=corp.example (")
	assert.Contains(t, info.String(), "mesh: clusterID=west (flag or settings file)\n")
	assert.NotContains(t, info.String(), "(default)")
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
	assert.False(t, wantsColour(file), "a file is no terminal")
}
