package webhook_test

import (
	"cmp"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/assert"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// maxHostileRatio is how many times the CPU of an ordinary review of the same size any
// other review may cost.
const maxHostileRatio = 20

// maxHostileMetadata leaves room below the 256 KiB of labels and annotations that are
// accepted: a pod with more is refused before anything is read.
const maxHostileMetadata = 240 << 10

// A hostileReview is a review in which one or two places are filled with text or items.
type hostileReview struct {
	// prelude is an index of hostilePreludes: how the pod is opted in.
	prelude int
	// first is filled with at most maxHostileMetadata bytes if it is metadata, and with
	// half of the review otherwise; second is filled with the rest.
	first, second hostileFill
	size          int
	// number makes reviews different from one another.
	number int
}

// hostileFill is a place and what it is filled with, as indexes of hostilePlaces and
// hostileTexts.
type hostileFill struct{ place, text int }

// hostilePlace is a place in a review of a pod. text places hold one string, the others
// a list of items.
type hostilePlace struct {
	slot        hostileSlot
	open, close string
	// item is repeated. Its %[1]d is the number of the item, and %[2]s a text. Without
	// item the place holds one string.
	item string
}

type hostileSlot int

const (
	slotAnnotations hostileSlot = iota
	slotLabels
	slotSpec
	slotEdge
	slotContainers
	slotReview
)

var hostilePreludes = []string{
	``,
	`"isthmus.dev/mode":"istio",`,
	`"isthmus.dev/mode":"secret",`,
	`"isthmus.dev/mode":"ambient",`,
	`"isthmus.dev/publish":"true","isthmus.dev/envoy":"true",`,
	`"isthmus.dev/profile":"generic","isthmus.dev/container":"edge",`,
}

// hostileTexts are what the parsers of values look for.
var hostileTexts = []string{
	"9", "0", "x", "1.", "1e9", "a: ", "- ", "[", "{", "{a: ", "&a [*a,", "a:b,", ",", "/", "../", " ", `\n`, `\"`, `\u0000`, `\\`, "é", "a1h", "isthmus.dev/", "debug:", "$(A)",
	"istio-certs ", "OUTPUT_CERTS ", "\xff",
}

var hostilePlaces = func() []hostilePlace {
	var places []hostilePlace
	for _, key := range []string{
		policy.InjectKey, policy.ModeKey, policy.DeliveryKey, policy.ProfileKey, policy.CertDirKey, policy.SecretNameKey, policy.PublishKey,
		policy.EnvoyKey, policy.CertTTLKey, policy.ContainerKey, policy.StatusKey, policy.IstioInjectKey, policy.IstioProxyConfigKey,
		policy.IstioUserVolumeMount, policy.IstioUserVolumeKey, policy.IstioProxyImageKey, policy.IstioProxyCPUKey, policy.IstioProxyMemoryKey,
		policy.IstioProxyCPULimitKey, policy.IstioProxyMemLimitKey, policy.IstioLogLevelKey, policy.IstioAgentLogLevelKey, policy.IstioStatusPortKey,
		policy.ConsulInjectKey, policy.DefaultContainerKey, policy.IstioStatusKey, policy.IstioInboundPortsKey, policy.IstioOutboundRangesKey,
		policy.AmbientInboundKey, "inject.istio.io/templates",
	} {
		places = append(places, hostilePlace{slot: slotAnnotations, open: `"` + key + `":"`, close: `",`})
	}
	for _, key := range []string{policy.InjectKey, policy.IstioInjectKey, policy.IstioRevisionLabel, policy.IstioTLSModeLabel, policy.IstioDataplaneLabel, policy.InjectedLabel, "app"} {
		places = append(places, hostilePlace{slot: slotLabels, open: `"` + key + `":"`, close: `",`})
	}
	status := `{\"schema\":1,\"version\":\"v1\",\"mode\":\"sidecar\",\"profile\":\"emissary\",\"delivery\":\"files\",\"template\":\"x\",\"container\":\"edge\",`
	return append(
		places,
		hostilePlace{slot: slotAnnotations, open: `"isthmus.dev/`, close: `":"",`},
		hostilePlace{slot: slotAnnotations, open: `"`, close: `":"",`},
		hostilePlace{slot: slotLabels, open: `"isthmus.dev/`, close: `":"",`},
		hostilePlace{slot: slotAnnotations, item: `"isthmus.dev/%[1]d%[2]s":"",`},
		hostilePlace{slot: slotAnnotations, item: `"%[1]d":"%[2]s",`},
		hostilePlace{slot: slotLabels, item: `"isthmus.dev/%[1]d%[2]s":"",`},
		hostilePlace{slot: slotAnnotations, open: `"isthmus.dev/status":"` + status + `\"certDir\":\"/`, close: `\"}",`},
		hostilePlace{slot: slotAnnotations, open: `"isthmus.dev/status":"` + status + `\"added\":{\"initContainers\":{`, item: `\"%[1]d\":{},`, close: `\"edge\":{}}}}",`},
		hostilePlace{slot: slotAnnotations, open: `"isthmus.dev/status":"` + status + `\"added\":{\"initContainers\":{\"init\":{}},\"env\":{`, item: `\"E%[1]d\":\"\",`, close: `\"E1\":\"\"}}}",`},
		hostilePlace{slot: slotAnnotations, open: `"isthmus.dev/status":"` + status + `\"added\":{\"initContainers\":{\"init\":{}},\"volumes\":{`, item: `\"v%[1]d\":\"\",`, close: `\"v1\":\"\"}}}",`},
		hostilePlace{slot: slotAnnotations, open: `"proxy.istio.io/config":"proxyMetadata:\n`, item: `  A%[1]d: b\n`, close: `",`},
		hostilePlace{slot: slotAnnotations, open: `"sidecar.istio.io/userVolumeMount":"{`, item: `\"v%[1]d\":{\"mountPath\":\"/etc/istio-certs\"},`, close: `\"a\":{}}",`},
		hostilePlace{slot: slotAnnotations, open: `"sidecar.istio.io/agentLogLevel":"`, item: `a%[1]d:debug,`, close: `all:info",`},
		hostilePlace{slot: slotSpec, open: `"volumes":[`, item: `{"name":"v%[1]d","emptyDir":{}},`, close: `{"name":"a"}],`},
		hostilePlace{slot: slotSpec, open: `"volumes":[`, item: `{},`, close: `{}],`},
		hostilePlace{slot: slotSpec, open: `"volumes":[{"name":"`, close: `"}],`},
		hostilePlace{slot: slotSpec, open: `"initContainers":[`, item: `{"name":"c%[1]d","image":"%[2]s"},`, close: `{"name":"init"}],`},
		hostilePlace{slot: slotSpec, open: `"initContainers":[`, item: `{},`, close: `{"name":"init"}],`},
		hostilePlace{slot: slotSpec, open: `"imagePullSecrets":[`, item: `{"name":"%[2]s"},`, close: `{}],`},
		hostilePlace{slot: slotSpec, open: `"nodeSelector":{`, item: `"%[1]d":"%[2]s",`, close: `"a":"b"},`},
		hostilePlace{slot: slotSpec, open: `"resources":{"limits":{`, item: `"%[1]d":"999999999999999999999999999999999999999999999999999999999999999",`, close: `"a":"1"}},`},
		hostilePlace{slot: slotSpec, open: `"resources":{"limits":{"memory":"`, close: `"}},`},
		hostilePlace{slot: slotSpec, open: `"hostUsers":null,"future":[`, item: `"%[2]s",`, close: `0],`},
		hostilePlace{slot: slotSpec, open: `"dnsPolicy":"`, close: `",`},
		hostilePlace{slot: slotSpec, open: `"restartPolicy":"`, close: `",`},
		hostilePlace{slot: slotContainers, item: `{"name":"c%[1]d","image":"%[2]s"},`},
		hostilePlace{slot: slotContainers, item: `{"image":"datawire/aes:1.%[1]d"},`},
		hostilePlace{slot: slotContainers, item: `{"image":"x","command":["%[2]s"],"env":[{"name":"AMBASSADOR_NAMESPACE"}]},`},
		hostilePlace{slot: slotContainers, item: `{"name":"istio-proxy"},`},
		hostilePlace{slot: slotContainers, open: `{"image":"`, close: `"},`},
		hostilePlace{slot: slotEdge, open: `"command":["`, close: `"],`},
		hostilePlace{slot: slotEdge, open: `"args":[`, item: `"%[2]s",`, close: `""],`},
		hostilePlace{slot: slotEdge, open: `"env":[`, item: `{"name":"E%[1]d"},`, close: `{"name":"E"}],`},
		hostilePlace{slot: slotEdge, open: `"env":[`, item: `{},`, close: `{"name":"E"}],`},
		hostilePlace{slot: slotEdge, open: `"env":[{"name":"AMBASSADOR_ISTIO_SECRET_DIR","value":"/`, close: `"}],`},
		hostilePlace{slot: slotEdge, open: `"env":[`, item: `{"name":"A","value":"$(A)$(A)"},`, close: `{"name":"AMBASSADOR_NAMESPACE","value":"$(A)"}],`},
		hostilePlace{slot: slotEdge, open: `"env":[`, item: `{"name":"A","value":"%[2]s"},`, close: `{"name":"AMBASSADOR_ID","value":"$(B)$(C)"}],`},
		hostilePlace{slot: slotEdge, open: `"envFrom":[`, item: `{"prefix":"%[2]s"},`, close: `{}],`},
		hostilePlace{slot: slotEdge, open: `"env":[{"name":"AMBASSADOR_ID","value":"`, close: `"}],`},
		hostilePlace{slot: slotEdge, open: `"volumeMounts":[`, item: `{"name":"v%[1]d","mountPath":"/"},`, close: `{"name":"a","mountPath":"/a"}],`},
		hostilePlace{slot: slotEdge, open: `"volumeMounts":[`, item: `{"name":"a","mountPath":"%[2]s"},`, close: `{"name":"a","mountPath":"/a"}],`},
		hostilePlace{slot: slotEdge, open: `"volumeMounts":[{"name":"istio-certs","mountPath":"/`, close: `"}],`},
		hostilePlace{slot: slotEdge, open: `"ports":[`, item: `{"containerPort":%[1]d},`, close: `{"containerPort":1}],`},
		hostilePlace{slot: slotEdge, open: `"resources":{"limits":{"cpu":"1","memory":"`, close: `"}},`},
		hostilePlace{slot: slotEdge, open: `"readinessProbe":{"httpGet":{"path":"`, close: `"}},`},
		hostilePlace{slot: slotReview, open: `"userInfo":{"username":"`, close: `"},`},
		hostilePlace{slot: slotReview, open: `"options":[`, item: `{},`, close: `{}],`},
		hostilePlace{slot: slotReview, open: `"uid":"`, close: `",`},
		hostilePlace{slot: slotReview, open: `"subResource":"`, close: `",`},
	)
}()

// plainPlace and plainText fill a review with text that nothing looks at.
var plainPlace, plainText = slices.IndexFunc(hostilePlaces, func(p hostilePlace) bool { return strings.HasPrefix(p.open, `"command"`) }), 2

func (r hostileReview) String() string {
	name := func(f hostileFill) string {
		p := hostilePlaces[f.place]
		return fmt.Sprintf("%.60s %.40s %q", p.open, p.item, hostileTexts[f.text])
	}
	return fmt.Sprintf("%s %s and %s", hostilePreludes[r.prelude], name(r.first), name(r.second))
}

// body returns the review.
func (r hostileReview) body() []byte {
	slots := map[hostileSlot]string{}
	fill := func(f hostileFill, size int) {
		p := hostilePlaces[f.place]
		if p.slot <= slotLabels {
			size = min(size, maxHostileMetadata)
		}
		slots[p.slot] += p.filled(hostileTexts[f.text], size, r.number)
	}
	first := r.size / 2
	if hostilePlaces[r.first.place].slot <= slotLabels {
		first = min(r.size, maxHostileMetadata)
	}
	fill(r.first, first)
	fill(r.second, r.size-first)
	return fmt.Appendf(nil, `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"1",%s`+
		`"resource":{"group":"","version":"v1","resource":"pods"},"namespace":"emissary","operation":"CREATE",`+
		`"object":{"metadata":{"name":"edge-%d","annotations":{%s%s"a":"b"},"labels":{%s"a":"b"}},"spec":{%s`+
		`"containers":[%s{%s"name":"edge","image":"emissaryingress/emissary:4.1.0"}]}}}}`,
		slots[slotReview], r.number, hostilePreludes[r.prelude], slots[slotAnnotations], slots[slotLabels], slots[slotSpec], slots[slotContainers], slots[slotEdge])
}

// filled returns the place filled with about size bytes.
func (p hostilePlace) filled(text string, size, number int) string {
	number *= 1000
	size = max(0, size-len(p.open)-len(p.close))
	if p.item == "" {
		prefix := ""
		if number > 0 {
			prefix = fmt.Sprint(number)
		}
		return p.open + prefix + strings.Repeat(text, max(0, size-len(prefix))/len(text)) + p.close
	}
	var b strings.Builder
	b.WriteString(p.open)
	for b.Len() < size {
		number++
		item := strings.ReplaceAll(strings.ReplaceAll(p.item, "%[1]d", fmt.Sprint(number)), "%[2]s", text)
		b.WriteString(item)
	}
	b.WriteString(p.close)
	return b.String()
}

// ordinaryReview is the fixture of 4 KB, with an argument that makes it as large as
// hostile ones.
func ordinaryReview(t testing.TB, size int) []byte {
	t.Helper()
	pod := edgePod(t, "4KB")
	pod.Spec.Containers[0].Args = append(pod.Spec.Containers[0].Args, strings.Repeat("x", size-4<<10))
	return reviewOf(t, pod)
}

// cpuOf returns the least CPU time that the handler takes for the body, of some runs.
// It includes the collection of what the review leaves behind.
func cpuOf(h http.Handler, body []byte, runs int) time.Duration {
	least := time.Duration(1<<63 - 1)
	for range runs {
		before := processCPU()
		post(h, body)
		least = min(least, processCPU()-before)
	}
	return least
}

func processCPU() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// hostileReviews returns a review for each place and text, and one for every two lists.
func hostileReviews(size int) []hostileReview {
	var reviews []hostileReview
	for place, p := range hostilePlaces {
		for text := range hostileTexts {
			if text > 0 && p.item != "" && !strings.Contains(p.item, "%[2]s") {
				break // the text is not part of it
			}
			reviews = append(reviews, hostileReview{
				prelude: len(reviews) % len(hostilePreludes), first: hostileFill{place, text}, second: hostileFill{plainPlace, plainText}, size: size,
			})
		}
		for other, q := range hostilePlaces {
			if p.item != "" && q.item != "" && place <= other {
				reviews = append(reviews, hostileReview{first: hostileFill{place, 2}, second: hostileFill{other, 2}, size: size})
			}
		}
	}
	return reviews
}

// BenchmarkHostile prints how many times the CPU of an ordinary review of its size the
// worst review costs.
func BenchmarkHostile(b *testing.B) {
	for _, c := range []struct {
		name string
		size int
	}{{"240KiB", 240 << 10}, {"3MiB", 3 << 20}} {
		b.Run(c.name, func(b *testing.B) {
			h := newHandler(b, nil, logr.Discard())
			ordinary := cpuOf(h, ordinaryReview(b, c.size), 20)
			type cost struct {
				review hostileReview
				cpu    time.Duration
			}
			compare := func(a, b cost) int { return cmp.Compare(b.cpu, a.cpu) }
			for b.Loop() {
				var costs []cost
				for _, r := range hostileReviews(c.size) {
					costs = append(costs, cost{r, cpuOf(h, r.body(), 1)})
				}
				slices.SortFunc(costs, compare)
				worst := costs[:20]
				for i := range worst { // again, without what happened beside it
					worst[i].cpu = cpuOf(h, worst[i].review.body(), 10)
				}
				slices.SortFunc(worst, compare)
				for _, c := range worst[:3] {
					b.Logf("%.1f times %v: %s", float64(c.cpu)/float64(ordinary), ordinary, c.review)
				}
				b.ReportMetric(float64(worst[0].cpu)/float64(ordinary), "ratio")
			}
		})
	}
}

// BenchmarkHostileMemory prints how much larger the heap is after different reviews of
// every kind.
func BenchmarkHostileMemory(b *testing.B) {
	for _, c := range []struct {
		name          string
		reviews, size int
	}{{"400x240KiB", 400, 240 << 10}, {"10000x48KiB", 10_000, 48 << 10}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				b.ReportMetric(float64(heapGrowth(b, c.reviews, c.size))/(1<<20), "MiB")
			}
		})
	}
}

// TestHostileReviewsLeaveNoMemory shows that the size of what is kept of reviews is
// bounded, not only its number.
func TestHostileReviewsLeaveNoMemory(t *testing.T) {
	assert.Less(t, heapGrowth(t, 400, 240<<10), 2<<20)
}

// heapGrowth returns how many bytes the heap grows by different reviews of every kind.
func heapGrowth(t testing.TB, reviews, size int) int {
	t.Helper()
	h := newHandler(t, nil, logr.Discard())
	kinds := hostileReviews(size)
	step := max(1, len(kinds)/reviews)
	send := func(i int) {
		r := kinds[i*step%len(kinds)]
		r.number = i
		post(h, r.body())
	}
	send(0)
	before := liveHeap()
	for i := range reviews {
		send(i + 1)
	}
	growth := liveHeap() - before
	runtime.KeepAlive(h)
	return growth
}

// liveHeap returns the size of the heap without garbage. The second collection also
// empties the pools.
func liveHeap() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// FuzzHostile looks for a review that costs more than maxHostileRatio times the CPU of
// an ordinary one of its size.
func FuzzHostile(f *testing.F) {
	f.Add(uint8(0), uint8(0), uint8(plainPlace), uint8(plainText), uint8(0))
	f.Add(uint8(plainPlace), uint8(plainText), uint8(0), uint8(0), uint8(1))
	const size = 3 << 20
	h := newHandler(f, nil, logr.Discard())
	ordinary := cpuOf(h, ordinaryReview(f, size), 10)
	f.Fuzz(func(t *testing.T, firstPlace, firstText, secondPlace, secondText, prelude uint8) {
		r := hostileReview{
			prelude: int(prelude) % len(hostilePreludes),
			first:   hostileFill{int(firstPlace) % len(hostilePlaces), int(firstText) % len(hostileTexts)},
			second:  hostileFill{int(secondPlace) % len(hostilePlaces), int(secondText) % len(hostileTexts)},
			size:    size,
		}
		body := r.body()
		if cpuOf(h, body, 1) <= maxHostileRatio*ordinary {
			return
		}
		if cpu := cpuOf(h, body, 10); cpu > maxHostileRatio*ordinary {
			t.Fatalf("%.1f times the CPU of an ordinary review: %s", float64(cpu)/float64(ordinary), r)
		}
	})
}
