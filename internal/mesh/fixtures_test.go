package mesh

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
)

// loadObjects decodes the objects in a file of YAML documents.
func loadObjects(t testing.TB, file string) []runtime.Object {
	t.Helper()
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	var objects []runtime.Object
	for decoder := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(data))); ; {
		doc := make([]byte, len(data))
		n, err := decoder.Read(doc)
		if errors.Is(err, io.EOF) {
			return objects
		}
		require.NoError(t, err)
		o, _, err := scheme.Codecs.UniversalDeserializer().Decode(doc[:n], nil, nil)
		require.NoError(t, err)
		objects = append(objects, o)
	}
}

// controlPlane returns the only control plane in a file.
func controlPlane(t testing.TB, file string) ControlPlane {
	t.Helper()
	var configMaps []*corev1.ConfigMap
	var deployments []*appsv1.Deployment
	for _, o := range loadObjects(t, file) {
		switch o := o.(type) {
		case *corev1.ConfigMap:
			configMaps = append(configMaps, o)
		case *appsv1.Deployment:
			deployments = append(deployments, o)
		}
	}
	planes := controlPlanes(DefaultNamespace, configMaps, deployments)
	require.Len(t, planes, 1)
	for _, plane := range planes {
		return plane
	}
	return ControlPlane{}
}
