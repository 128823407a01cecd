package webhook

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/randfill"
	"sigs.k8s.io/yaml"

	kjson "sigs.k8s.io/json"

	"github.com/isthmus-mesh/isthmus/test/framework/corpus"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// referenceReview is an admissionReview whose object the API machinery's decoder leaves
// as text.
type referenceReview struct {
	APIVersion string                         `json:"apiVersion"`
	Kind       string                         `json:"kind"`
	Request    *request[runtime.RawExtension] `json:"request"`
}

// UnmarshalJSON makes kjson, which does not know UnmarshalJSONFrom, read an object as
// text.
func (o *object[T]) UnmarshalJSON(text []byte) error {
	if raw, ok := any(&o.value).(*runtime.RawExtension); ok {
		return raw.UnmarshalJSON(text)
	}
	panic("only for the reference")
}

// UnmarshalJSON makes kjson read a quantity of any length.
func (q *boundedQuantity) UnmarshalJSON(text []byte) error {
	q.present = true
	return q.value.UnmarshalJSON(text)
}

// decodeLikeAPIMachinery decodes a review twice, as an API server does: the review, and
// then its object into T.
func decodeLikeAPIMachinery[T any](body []byte) (*referenceReview, *T, error) {
	review := &referenceReview{}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(body, review); err != nil {
		return nil, nil, err
	}
	if review.Request == nil || review.Request.Object.value.Raw == nil {
		return review, nil, nil
	}
	object := new(T)
	if err := kjson.UnmarshalCaseSensitivePreserveInts(review.Request.Object.value.Raw, object); err != nil {
		return nil, nil, err
	}
	return review, object, nil
}

// longNumber matches what may be a quantity that is not parsed.
var longNumber = regexp.MustCompile(`[-+.0-9a-zA-Z]{64}`)

// requireDecodedAlike compares the decoder with that of the API machinery, and the
// engine's decisions on what was decoded with those on the whole pod.
func requireDecodedAlike(t *testing.T, engine *inject.Engine, body []byte) {
	t.Helper()
	got, err := decodeReview[podFields](body)
	if longNumber.Match(body) {
		return // the API machinery parses quantities of any length, for as long as it takes
	}
	reference, fields, referenceErr := decodeLikeAPIMachinery[podFields](body)
	require.Equal(t, referenceErr == nil, err == nil, "decoder: %v; API machinery's: %v", err, referenceErr)
	if err != nil {
		return
	}
	require.Equal(t, reference.APIVersion, got.APIVersion)
	require.Equal(t, reference.Kind, got.Kind)
	require.Equal(t, reference.Request == nil, got.Request == nil)
	if got.Request == nil {
		return
	}
	require.Equal(t, withoutObjects(reference.Request), withoutObjects(got.Request))
	require.Equal(t, fields != nil, got.Request.Object.present)
	if fields == nil {
		return
	}
	require.Equal(t, *fields, got.Request.Object.value)

	if _, whole, err := decodeLikeAPIMachinery[corev1.Pod](body); err == nil {
		requireDecidedAlike(t, engine, whole, got.Request.Object.value.toPod())
	}
}

func withoutObjects[T any](r *request[T]) request[struct{}] {
	return request[struct{}]{
		UID: r.UID, Kind: r.Kind, Resource: r.Resource, SubResource: r.SubResource,
		Name: r.Name, Namespace: r.Namespace, Operation: r.Operation,
	}
}

func requireDecidedAlike(t *testing.T, engine *inject.Engine, whole, decoded *corev1.Pod) {
	t.Helper()
	for name, annotations := range map[string]map[string]string{
		"default": nil, "istio": {policy.ModeKey: "istio"}, "secret": {policy.ModeKey: "secret"},
		"ambient": {policy.ModeKey: "ambient"}, "publish": {policy.PublishKey: "true"}, "envoy": {policy.EnvoyKey: "true"},
	} {
		ns := policy.Namespace{Name: "edge", Labels: map[string]string{policy.InjectionLabel: policy.InjectionEnabled}, Annotations: annotations}
		want, got := engine.Inject(inject.Request{Pod: whole, Namespace: ns}), engine.Inject(inject.Request{Pod: decoded, Namespace: ns})
		require.Equal(t, string(want.Reason)+" "+want.Message, string(got.Reason)+" "+got.Message, name)
		require.Equal(t, want.Warnings, got.Warnings, name)
		require.Equal(t, string(want.EncodedPatch), string(got.EncodedPatch), name)
		want.Patch, got.Patch = nil, nil
		require.Equal(t, want, got, name)
	}
}

func newDecodingEngine(t testing.TB) *inject.Engine {
	t.Helper()
	engine, err := inject.New(inject.Options{Settings: inject.Settings{ImagePullSecrets: []string{"corp"}, PublisherImage: "corp/isthmus:1"}})
	require.NoError(t, err)
	return engine
}

// reviewText returns a review of the object.
func reviewText(t testing.TB, object []byte) []byte {
	t.Helper()
	text, err := json.Marshal(admissionv1.AdmissionReview{Request: &admissionv1.AdmissionRequest{
		UID: "705ab4f5", Namespace: "edge", Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: object},
	}})
	require.NoError(t, err)
	return text
}

// sampleObjects are the pods of the engine's goldens and of this package's fixtures.
func sampleObjects(t testing.TB) [][]byte {
	t.Helper()
	var objects [][]byte
	for _, pattern := range []string{"testdata/*.json", "inject/testdata/*/pod.yaml", "inject/testdata/*/want.yaml"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, files, pattern)
		for _, file := range files {
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			object, err := yaml.YAMLToJSON(data)
			require.NoError(t, err)
			objects = append(objects, object)
		}
	}
	return objects
}

// unusualReviews are texts on which decoders differ.
var unusualReviews = map[string]string{
	"duplicate names":           `{"request":{"object":{"metadata":{"name":"a","name":"b","labels":{"x":"1","x":"2"},"labels":{"y":"3"}}}}}`,
	"duplicate objects":         `{"request":{"uid":"1","object":{"metadata":{"name":"a"}},"object":{"spec":{}}},"request":{"uid":"2"}}`,
	"object, then null":         `{"request":{"object":{"metadata":{"name":"a"}},"object":null}}`,
	"null, then object":         `{"request":null,"request":{"object":null,"object":{"metadata":{"name":"a"}}}}`,
	"duplicate lists":           `{"request":{"object":{"spec":{"containers":[{"name":"a","image":"x"},{"name":"b"}],"containers":[{"name":"c"}],"containers":[{},{}]}}}}`,
	"duplicate pointers":        `{"request":{"object":{"spec":{"os":{"name":"windows"},"os":{},"hostUsers":true,"hostUsers":null}}}}`,
	"null, then merged":         `{"request":{"object":{"spec":{"hostNetwork":true,"hostNetwork":null,"dnsPolicy":"x","dnsPolicy":null}}}}`,
	"other case":                `{"Request":{"object":{}},"request":{"Object":{"metadata":{}},"object":{"Metadata":{"name":"a"},"metadata":{"NAME":"a","Labels":{"a":"b"}}}}}`,
	"null everywhere":           `{"request":{"uid":null,"kind":null,"object":{"metadata":null,"spec":{"containers":null,"initContainers":[null],"volumes":[{"name":null,"emptyDir":null}],"nodeSelector":{"a":null}}}}}`,
	"empty lists":               `{"request":{"object":{"metadata":{"labels":{},"annotations":{}},"spec":{"containers":[],"volumes":[],"initContainers":[],"imagePullSecrets":[]}}}}`,
	"unknown fields":            `{"future":1e999,"request":{"future":[{}],"object":{"future":{"a":[1,2]},"spec":{"containers":[{"name":"a","future":-0.0}]}}}}`,
	"escapes":                   `{"request":{"object":{"metadata":{"n\u0061me":"a\u0000\ud83d\ude00\/","labels":{"\u0061":"\ud800"}}}}}`,
	"invalid UTF-8":             "{\"request\":{\"object\":{\"metadata\":{\"name\":\"\xff\",\"labels\":{\"\xfe\":\"\xc3\x28\"}}}}}",
	"wrong type":                `{"request":{"object":{"spec":{"containers":{}}}}}`,
	"wrong type, then right":    `{"request":{"object":{"spec":{"containers":"","containers":[]}}}}`,
	"number as text":            `{"request":{"object":{"metadata":{"name":1}}}}`,
	"fraction":                  `{"request":{"object":{"spec":{"containers":[{"ports":[{"containerPort":80.0}]}]}}}}`,
	"exponent":                  `{"request":{"object":{"spec":{"containers":[{"ports":[{"containerPort":8e1}]}]}}}}`,
	"too large for an int32":    `{"request":{"object":{"spec":{"containers":[{"ports":[{"containerPort":2147483648}]}]}}}}`,
	"quantities":                `{"request":{"object":{"spec":{"resources":{"limits":{"cpu":"1","memory":1,"a":null,"b":"1e3","c":" 1 "},"requests":{"cpu":null,"cpu":"2","memory":"1","memory":null}}}}}}`,
	"selectors":                 `{"request":{"object":{"spec":{"nodeSelector":{"kubernetes.io/os":"windows","a":"b"}}}}}`,
	"wrong quantity":            `{"request":{"object":{"spec":{"resources":{"limits":{"cpu":"one"}}}}}}`,
	"quantity of another type":  `{"request":{"object":{"spec":{"resources":{"limits":{"cpu":[1]}}}}}}`,
	"text after the end":        `{"request":{}} {}`,
	"blanks":                    " \t\r\n{ \"request\" : { \"uid\" : \"1\" } } \n",
	"trailing comma":            `{"request":{"uid":"1",}}`,
	"control character":         "{\"request\":{\"uid\":\"\x01\"}}",
	"cut off in an ignored one": `{"future":[1,2`,
	"bad ignored number":        `{"future":01}`,
	"bad ignored escape":        `{"future":"\x"}`,
	"no object":                 `[]`,
	"null":                      `null`,
	"text":                      `"AdmissionReview"`,
	"empty":                     ``,
}

func TestUnusualReviewsAreDecodedAsByTheAPIMachinery(t *testing.T) {
	engine := newDecodingEngine(t)
	for name, body := range unusualReviews {
		t.Run(name, func(t *testing.T) { requireDecodedAlike(t, engine, []byte(body)) })
	}
}

// TestEngineDecidesAsOnTheWholePod shows that the engine reads no field that is not
// decoded: it decides alike on the whole pod.
func TestEngineDecidesAsOnTheWholePod(t *testing.T) {
	engine := newDecodingEngine(t)
	for _, object := range sampleObjects(t) {
		requireDecodedAlike(t, engine, reviewText(t, object))
	}
	injected := 0
	for seed := range int64(400) {
		pod := randomWholePod(seed)
		raw, err := json.Marshal(pod)
		require.NoError(t, err)
		requireDecodedAlike(t, engine, reviewText(t, raw))
		if engine.Inject(inject.Request{Pod: pod, Namespace: policy.Namespace{Name: "edge", Labels: map[string]string{policy.InjectionLabel: policy.InjectionEnabled}}}).Reason == policy.Injected {
			injected++
		}
	}
	assert.Greater(t, injected, 40, "the pods must get past the first checks")
}

func TestEngineDecidesAsOnTheWholePodOfTheCorpus(t *testing.T) {
	engine := newDecodingEngine(t)
	for _, row := range corpus.Rows(t, "../../shared/corpus", "TestEngineDecidesAsOnTheWholePod") {
		raw, err := json.Marshal(row.Pod(t))
		require.NoError(t, err)
		requireDecodedAlike(t, engine, reviewText(t, raw))
	}
}

// wholePodWords are the texts in random pods, so that they hold what the engine and the
// profiles look for.
var wholePodWords = []string{
	"", "a", "true", "false", "windows", "istio-certs", "istio-token", "istio-proxy", "istio-envoy", "edge", "sidecar", "/etc/istio-certs", "/etc", "Memory",
	"ClusterFirst", "ClusterFirstWithHostNet", "Default", "None", "Always", "Never", "OnFailure", "TCP", "UDP", "AMBASSADOR_ISTIO_SECRET_DIR", "OUTPUT_CERTS",
	"AMBASSADOR_NAMESPACE", "AMBASSADOR_ID", "$(AMBASSADOR_ID)", "metadata.name", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "istio/proxyv2:1.8.2", "/ambassador/v0/check_ready", "entrypoint", "corp", "cpu", "memory", "quay.io/datawire/aes:3.9.1",
}

// randomWholePod returns a pod with an edge in which every field may be set.
func randomWholePod(seed int64) *corev1.Pod {
	filler := randfill.NewWithSeed(seed).NilChance(0.5).NumElements(1, 2).MaxDepth(14).Funcs(
		func(s *string, c randfill.Continue) { *s = wholePodWords[c.Intn(len(wholePodWords))] },
		func(n *int32, c randfill.Continue) { *n = []int32{0, 80, 15020, 15021, 15090}[c.Intn(5)] },
		func(q *resource.Quantity, c randfill.Continue) {
			*q = *resource.NewQuantity(int64(c.Intn(3)), resource.DecimalSI)
		},
		func(m *map[string]string, c randfill.Continue) {
			if c.Intn(3) == 0 {
				*m = map[string]string{policy.EnvoyKey: "true", wholePodWords[c.Intn(len(wholePodWords))]: "a"}
			}
		},
		func(f *metav1.FieldsV1, _ randfill.Continue) { f.SetRawBytes([]byte("{}")) },
	)
	pod := &corev1.Pod{}
	filler.Fill(pod)
	edge := corev1.Container{}
	filler.Fill(&edge)
	edge.Name, edge.Image = "emissary", "emissaryingress/emissary:3.9.1"
	pod.Spec.Containers = append(pod.Spec.Containers, edge)
	return pod
}

// FuzzDecode compares the decoder with that of the API machinery on any text.
func FuzzDecode(f *testing.F) {
	for _, body := range unusualReviews {
		f.Add([]byte(body))
	}
	for _, object := range sampleObjects(f) {
		f.Add(reviewText(f, object))
	}
	if _, err := os.Stat("../../shared/corpus"); err == nil {
		for _, row := range corpus.Rows(f, "../../shared/corpus", "") {
			raw, err := json.Marshal(row.Pod(f))
			require.NoError(f, err)
			f.Add(reviewText(f, raw))
		}
	}
	engine := newDecodingEngine(f)
	f.Fuzz(func(t *testing.T, body []byte) { requireDecodedAlike(t, engine, body) })
}

// A quantity that would take long to parse is not parsed, and does not refuse the pod.
func TestLongQuantityIsNotParsed(t *testing.T) {
	nines := strings.Repeat("9", 1<<20)
	review, err := decodeReview[podFields]([]byte(`{"request":{"object":{"spec":{"resources":{"limits":{"cpu":"` + nines + `","memory":"` + nines[:maxQuantityBytes] + `"}}}}}}`))
	require.NoError(t, err)
	limits := review.Request.Object.value.toPod().Spec.Resources.Limits
	assert.True(t, limits.Cpu().IsZero())
	assert.Equal(t, 1, limits.Memory().Cmp(resource.MustParse("1Ei")))
}
