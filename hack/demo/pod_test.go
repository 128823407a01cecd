package main

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const replica = `{
  "metadata": {
    "name": "edge-6576d5765-m8l57", "namespace": "emissary", "uid": "1", "resourceVersion": "7",
    "labels": {"app": "edge", "pod-template-hash": "6576d5765"},
    "annotations": {"kubectl.kubernetes.io/restartedAt": "now",
      "isthmus.dev/status": "{\"mode\":\"sidecar\",\"profile\":\"emissary\",\"delivery\":\"files\",\"container\":\"edge\",\"certDir\":\"/etc/istio-certs\",\"warnings\":[\"files-not-reloaded\"]}"}
  },
  "spec": {
    "serviceAccountName": "front",
    "initContainers": [{"name": "istio-proxy", "env": [{"name": "TRUST_DOMAIN", "value": "cluster.local"}]}],
    "containers": [{"name": "edge", "image": "emissary:3.10.0", "volumeMounts": [{"name": "kube-api-access-x7k2p"}]}],
    "volumes": [{"name": "kube-api-access-x7k2p"}]
  },
  "status": {"phase": "Pending"}
}`

func parse(t *testing.T, text string) pod {
	t.Helper()
	var p pod
	require.NoError(t, json.Unmarshal([]byte(text), &p))
	return p
}

func TestNormalizedIsTheSameForEveryReplica(t *testing.T) {
	text, err := parse(t, replica).normalized()
	require.NoError(t, err)
	assert.Equal(t, `metadata:
  annotations:
    isthmus.dev/status: '{"mode":"sidecar","profile":"emissary","delivery":"files","container":"edge","ce...'
  labels:
    app: edge
  namespace: emissary
spec:
  containers:
  - image: emissary:3.10.0
    name: edge
    volumeMounts:
    - name: kube-api-access
  initContainers:
  - env:
    - name: TRUST_DOMAIN
      value: cluster.local
    name: istio-proxy
  serviceAccountName: front
  volumes:
  - name: kube-api-access
`, text)
}

func TestDescribeStatus(t *testing.T) {
	text, err := describeStatus(parse(t, replica))
	require.NoError(t, err)
	assert.Equal(t, `  namespace emissary is labelled isthmus.dev/injection=enabled, and the pod does not opt out
  profile emissary recognises container edge (emissary:3.10.0) as an edge
  mode sidecar, delivery files: the edge reads its certificate in /etc/istio-certs
  its identity will be spiffe://cluster.local/ns/emissary/sa/front
  warnings: files-not-reloaded (see docs/troubleshooting.md)`, text)

	_, err = describeStatus(parse(t, `{"metadata": {"name": "plain"}}`))
	assert.ErrorContains(t, err, "status of pod plain: ")
}
