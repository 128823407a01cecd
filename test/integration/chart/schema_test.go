package chart

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestValuesThatAreRefused(t *testing.T) {
	tests := map[string]struct{ values, message string }{
		"a value that does not exist":            {`replicas: 3`, `additional properties 'replicas' not allowed`},
		"a nested value that does not exist":     {`webhook: {timeout: 3}`, `at '/webhook': additional properties 'timeout' not allowed`},
		"no replica":                             {`replicaCount: 0`, `at '/replicaCount': minimum: got 0, want 1`},
		"a number as text":                       {`replicaCount: "2"`, `at '/replicaCount': got string, want integer`},
		"a privileged port":                      {`port: 443`, `at '/port': minimum: got 443, want 1,024`},
		"a port that is too high":                {`healthPort: 70000`, `at '/healthPort': maximum: got 70,000, want 65,535`},
		"a failure policy that does not exist":   {`webhook: {failurePolicy: fail}`, `at '/webhook/failurePolicy': value must be one of 'Fail', 'Ignore'`},
		"a timeout beyond Kubernetes' own":       {`webhook: {timeoutSeconds: 31}`, `at '/webhook/timeoutSeconds': maximum: got 31, want 30`},
		"a wildcard namespace":                   {`webhook: {excludedNamespaces: ["kube-*"]}`, `at '/webhook/excludedNamespaces/0': 'kube-*' does not match pattern`},
		"a certificate mode that does not exist": {`certificate: {mode: helm}`, `at '/certificate/mode': value must be one of 'self-managed', 'cert-manager', 'existing'`},
		"a CA that is no PEM":                    {`certificate: {mode: existing, existing: {secretName: a, caBundle: bm8=}}`, `at '/certificate/existing/caBundle': 'bm8=' does not match pattern '^$|-----BEGIN CERTIFICATE-----'`},
		"an issuer without a name":               {`certificate: {mode: cert-manager, certManager: {issuerRef: {kind: ClusterIssuer}}}`, `at '/certificate/certManager/issuerRef': properties 'name' required, if 'kind' exists`},
		"a lifetime in days":                     {`certificate: {certManager: {duration: 90d}}`, `at '/certificate/certManager/duration': '90d' does not match pattern`},
		"a log level that does not exist":        {`logLevel: verbose`, `at '/logLevel': value must be one of 'info', 'debug'`},
		"a mode that does not exist":             {`defaults: {mode: waypoint}`, `at '/defaults/mode': value must be one of 'sidecar', 'istio', 'secret', 'ambient'`},
		"a source that does not exist":           {`defaults: {source: vault}`, `at '/defaults/source': value must be one of 'istio-ca', 'agent', 'cert-manager', 'mirror'`},
		"an audience with quotes":                {`mesh: {tokenAudience: "a' || 'b"}`, `at '/mesh/tokenAudience': 'a\' || \'b' does not match pattern`},
		"a mirrored Secret in capitals":          {`controller: {mirrorSecretNames: [Istio]}`, `at '/controller/mirrorSecretNames/0': 'Istio' does not match pattern`},
		"no controller replica":                  {`controller: {replicaCount: 0}`, `at '/controller/replicaCount': minimum: got 0, want 1`},
		"a delivery that does not exist":         {`defaults: {delivery: file}`, `at '/defaults/delivery': value must be one of 'files', 'secret'`},
		"a relative certificate directory":       {`defaults: {certDir: etc/istio-certs}`, `at '/defaults/certDir': 'etc/istio-certs' does not match pattern`},
		"a boolean as text":                      {`defaults: {envoy: "true"}`, `at '/defaults/envoy': got string, want boolean`},
		"an address without a port":              {`mesh: {caAddress: istiod.istio-system.svc}`, `at '/mesh/caAddress': 'istiod.istio-system.svc' does not match pattern '^([^ /]+:[0-9]+)?$'`},
		"an address that is a URL":               {`mesh: {discoveryAddress: "https://istiod:15012"}`, `at '/mesh/discoveryAddress': 'https://istiod:15012' does not match pattern`},
		"a trust domain that is a SPIFFE ID":     {`mesh: {trustDomain: "spiffe://cluster.local"}`, `at '/mesh/trustDomain': 'spiffe://cluster.local' does not match pattern`},
		"a cluster id that is a number":          {`mesh: {clusterID: 7}`, `at '/mesh/clusterID': got number, want string`},
		"a mesh setting that does not exist":     {`mesh: {caAddres: "istiod:15012"}`, `at '/mesh': additional properties 'caAddres' not allowed`},
		"no Secret names":                        {`secretNames: []`, `at '/secretNames': minItems: got 0, want 1`},
		"a Secret name in capitals":              {`secretNames: [Istio]`, `at '/secretNames/0': 'Istio' does not match pattern`},
		"a digest that is too short":             {`image: {digest: "sha256:abc"}`, `at '/image/digest': 'sha256:abc' does not match pattern`},
		"a repository in the tag":                {`image: {tag: "isthmus:1.0"}`, `at '/image/tag': 'isthmus:1.0' does not match pattern`},
		"a pull secret as text":                  {`imagePullSecrets: [registry]`, `at '/imagePullSecrets/0': got string, want object`},
		"a quantity with an unknown suffix":      {`resources: {limits: {memory: 128MB}}`, `at '/resources/limits/memory': '128MB' does not match pattern`},
		"no unavailable replica":                 {`podDisruptionBudget: {maxUnavailable: 0}`, `at '/podDisruptionBudget/maxUnavailable': minimum: got 0, want 1`},
		"a profile without a description":        {`profiles: {kong: {onlyNamed: true}}`, `at '/profiles/kong': missing property 'description'`},
		"a profile with an image":                {`profiles: {kong: {description: A., onlyNamed: true, image: x}}`, `at '/profiles/kong': additional properties 'image' not allowed`},
		"a criterion without a condition":        {`profiles: {kong: {description: A., match: [{}]}}`, `at '/profiles/kong/match/0': minProperties: got 0, want 1`},
		"an image with a tag to match":           {`profiles: {kong: {description: A., match: [{images: ["kong:3"]}]}}`, `at '/profiles/kong/match/0/images/0': 'kong:3' does not match pattern`},
		"a label that is no text":                {`podLabels: {team: 7}`, `at '/podLabels/team': got number, want string`},
		"an invalid namespace":                   {`istio: {namespace: istio_system}`, `at '/istio/namespace': 'istio_system' does not match pattern`},
		"an old Kubernetes":                      {``, `chart requires kubeVersion: >=1.30.0-0 which is incompatible with Kubernetes v1.29.9`},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			if c.values == "" {
				_, err := helm("template", "front", chart, "--kube-version", "1.29.9")
				assert.ErrorContains(t, err, c.message)
				return
			}
			_, err := renderChart(t, "front", "mesh-tools", c.values)
			assert.ErrorContains(t, err, c.message)
		})
	}
}
