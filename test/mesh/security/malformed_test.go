package security

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMalformedReviews sends reviews to the real server that no API server would send: the
// server refuses each, or answers it like any pod, and goes on.
func TestMalformedReviews(t *testing.T) {
	webhook := sharedServers(t).webhook
	ns := env.CreateNamespace(t, nil)
	c := client(t, true)
	pod := edgePodJSON("")
	podWithMetadata := func(text string) string { return strings.Replace(pod, `"name":"front"`, `"name":"front",`+text, 1) }
	var compressed bytes.Buffer
	zip := gzip.NewWriter(&compressed)
	_, err := zip.Write([]byte(reviewJSON(ns, pod)))
	require.NoError(t, err)
	require.NoError(t, zip.Close())
	nested := strings.Repeat(`{"a":`, 9_000) + "1" + strings.Repeat("}", 9_000)
	tests := map[string]struct {
		body    string
		edit    func(*http.Request)
		path    string
		code    int
		message string
	}{
		"if it is empty, expect 400":                                     {code: 400, message: "decode AdmissionReview"},
		"if it is cut off, expect 400":                                   {body: reviewJSON(ns, pod)[:400], code: 400, message: "decode AdmissionReview"},
		"if it is no object, expect 400":                                 {body: `["AdmissionReview"]`, code: 400, message: "decode AdmissionReview"},
		"if it is null, expect 400":                                      {body: "null", code: 400, message: `got kind ""`},
		"if it is of another kind, expect 400":                           {body: `{"kind":"Pod"}`, code: 400, message: `got kind "Pod"`},
		"if its kind fills a megabyte, expect a short answer":            {body: `{"kind":"` + strings.Repeat("K", 1<<20) + `"}`, code: 400, message: "..."},
		"if its case is another, expect 400":                             {body: strings.Replace(reviewJSON(ns, pod), `"kind"`, `"Kind"`, 1), code: 400, message: `got kind ""`},
		"if it is nested 10,001 deep, expect 400":                        {body: `{"future":` + strings.Repeat("[", 10_001), code: 400, message: "exceeded max depth"},
		"if it is a million brackets, expect 413":                        {body: strings.Repeat("[", 1<<20), code: 413, message: "too many objects and lists"},
		"if an unknown field is nested 9,000 deep, expect an injection":  {body: reviewJSON(ns, edgePodJSON(`"future":`+nested+`,`)), code: 200, message: `"reason":"injected"`},
		"if a known field is nested 9,000 deep, expect 500":              {body: reviewJSON(ns, edgePodJSON(`"volumes":`+strings.Repeat("[", 9_000)+strings.Repeat("]", 9_000)+`,`)), code: 500, message: "/request/object/spec/volumes/0: unexpected ["},
		"if a field that is not read has another type, expect injection": {body: reviewJSON(ns, edgePodJSON(`"affinity":[[1e999]],`)), code: 200, message: `"reason":"injected"`},
		"if keys are there twice, expect the last":                       {body: reviewJSON(ns, edgePodJSON(`"containers":[],`)), code: 200, message: `"reason":"injected"`},
		"if a name holds NUL, expect an injection":                       {body: reviewJSON(ns, podWithMetadata(`"labels":{"a":"\u0000"}`)), code: 200, message: `"reason":"injected"`},
		"if a raw NUL is in a string, expect 400":                        {body: reviewJSON(ns, podWithMetadata("\"labels\":{\"a\":\"\x00\"}")), code: 400, message: "decode AdmissionReview"},
		"if it is no UTF-8, expect an injection":                         {body: reviewJSON(ns, podWithMetadata("\"labels\":{\"a\":\"\xff\xfe\"}")), code: 200, message: `"reason":"injected"`},
		"if a number is huge, expect 500":                                {body: reviewJSON(ns, edgePodJSON(`"initContainers":[{"ports":[{"containerPort":1e999}]}],`)), code: 500, message: "/containerPort: "},
		"if a number has a million digits, expect 500":                   {body: reviewJSON(ns, edgePodJSON(`"initContainers":[{"ports":[{"containerPort":`+strings.Repeat("9", 1<<20)+`}]}],`)), code: 500, message: "/containerPort: "},
		"if a quantity is absurd, expect an injection":                   {body: reviewJSON(ns, strings.Replace(pod, `"name":"ambassador"`, `"name":"ambassador","resources":{"limits":{"memory":"1e1000000000"}}`, 1)), code: 200, message: `"reason":"injected"`},
		"if there are 5,000 containers, expect an injection":             {body: reviewJSON(ns, edgePodJSON(`"initContainers":[`+strings.Repeat(containerJSON+",", 4_999)+containerJSON+`],`)), code: 200, message: `"reason":"injected"`},
		"if there are 100,000 variables, expect an answer":               {body: reviewJSON(ns, strings.Replace(pod, `"name":"ambassador"`, `"name":"ambassador","env":[`+strings.Repeat(`{"name":"A"},`, 9_999)+`{"name":"A"}]`, 1)), code: 200, message: `"reason":"injected"`},
		"if annotations are larger than Kubernetes takes, expect denial": {body: reviewJSON(ns, podWithMetadata(`"annotations":{"a":"`+strings.Repeat("x", 1<<20)+`"}`)), code: 200, message: "Kubernetes takes at most 262144"},
		"if a key of ours is a quarter of a megabyte, expect an answer":  {body: reviewJSON(ns, podWithMetadata(`"annotations":{"isthmus.dev/`+strings.Repeat("x", 250_000)+`":""}`)), code: 200, message: "..."},
		"if the status is forged and nested, expect no more than before": {body: reviewJSON(ns, podWithMetadata(`"annotations":{"isthmus.dev/status":"`+strings.Repeat("[", 100_000)+`"}`)), code: 200, message: `"allowed":`},
		"if the namespace leads elsewhere, expect 500":                   {body: reviewJSON("../../secrets", pod), code: 500, message: "invalid namespace name"},
		"if the namespace does not exist, expect 500":                    {body: reviewJSON("nowhere-at-all", pod), code: 500, message: "not found"},
		"if it is an update, expect 500":                                 {body: strings.Replace(reviewJSON(ns, pod), "CREATE", "UPDATE", 1), code: 500, message: "CREATE of pods only"},
		"if it is a Secret's review, expect 500":                         {body: strings.Replace(reviewJSON(ns, `{"data":{"a":"czNjcjN0"}}`), `"resource":"pods"`, `"resource":"secrets"`, 1), code: 500, message: "CREATE of pods only"},
		"if the type is text, expect 415":                                {body: reviewJSON(ns, pod), edit: header("Content-Type", "text/plain"), code: 415},
		"if the type is a form, expect 415":                              {body: reviewJSON(ns, pod), edit: header("Content-Type", "multipart/form-data; boundary=x"), code: 415},
		"if the type is broken, expect 415":                              {body: reviewJSON(ns, pod), edit: header("Content-Type", "application/json; ="), code: 415},
		"if there is no type, expect 415":                                {body: reviewJSON(ns, pod), edit: func(r *http.Request) { r.Header.Del("Content-Type") }, code: 415},
		"if it is compressed, expect 400":                                {body: compressed.String(), edit: header("Content-Encoding", "gzip"), code: 400, message: "decode AdmissionReview"},
		"if it is a GET, expect 405":                                     {edit: method(http.MethodGet), code: 405},
		"if it is a PUT, expect 405":                                     {body: reviewJSON(ns, pod), edit: method(http.MethodPut), code: 405},
		"if it is a TRACE, expect 405":                                   {edit: method(http.MethodTrace), code: 405},
		"if the path is another, expect 404":                             {body: reviewJSON(ns, pod), path: "/debug/pprof/heap", code: 404},
		"if the headers are long, expect 431":                            {body: reviewJSON(ns, pod), edit: header("X-Long", strings.Repeat("x", 1<<16)), code: 431},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := test.path
			if path == "" {
				path = "/inject/namespace"
			}
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, webhook.ReviewURL+path, strings.NewReader(test.body))
			require.NoError(t, err)
			request.Header.Set("Content-Type", "application/json")
			if test.edit != nil {
				test.edit(request)
			}
			sender := c
			if test.code == http.StatusRequestHeaderFieldsTooLarge {
				sender = client(t, false) // an HTTP/2 client knows the limit, and keeps to it
			}
			a, err := doRequest(sender, request)
			require.NoError(t, err)
			assert.Equal(t, test.code, a.code, "%.300s", a.body)
			assert.Contains(t, a.body, test.message)
			assert.NotContains(t, a.body, "panic")
			assert.Less(t, len(a.body), 32<<10, "an answer does not repeat what was sent")
			assert.NoError(t, sendGoodReview(t.Context(), c, webhook.ReviewURL, ns), "afterwards")
		})
	}
}

func header(key, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(key, value) }
}

func method(name string) func(*http.Request) { return func(r *http.Request) { r.Method = name } }

// TestLengthsThatLie sends requests whose length is wrong: nothing that follows is read as a
// review.
func TestLengthsThatLie(t *testing.T) {
	webhook := sharedServers(t).webhook
	ns := env.CreateNamespace(t, nil)
	body := reviewJSON(ns, edgePodJSON(""))
	post := "POST /inject/namespace HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	for name, test := range map[string]struct {
		text string
		code string
	}{
		"if it is shorter than it says, expect 400":           {post + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body)+100, body), "400"},
		"if it is longer than it says, expect 400":            {post + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body)-100, body), "400"},
		"if it says a huge length, expect 413":                {post + "Content-Length: 9223372036854775807\r\n\r\n{", "413"},
		"if it says a negative length, expect 400":            {post + "Content-Length: -1\r\n\r\n", "400"},
		"if it says two lengths, expect 400":                  {post + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}", "400"},
		"if it says a length and chunks, expect chunks alone": {post + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
		"if chunks are no chunks, expect 400":                 {post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n", "400"},
		"if the encoding is unknown, expect 501":              {post + "Transfer-Encoding: gzip\r\n\r\n", "501"},
	} {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, webhook.ReviewURL, tlsConfig(t))
			_, err := io.WriteString(conn, test.text)
			require.NoError(t, err)
			require.NoError(t, conn.CloseWrite())
			line, err := bufio.NewReader(conn).ReadString('\n')
			require.NoError(t, err)
			assert.Contains(t, line, " "+test.code+" ")
		})
	}
	assert.NoError(t, sendGoodReview(t.Context(), client(t, true), webhook.ReviewURL, ns))
}

// dial opens a TLS connection for tests that write their own HTTP.
func dial(t testing.TB, url string, config *tls.Config) *tls.Conn {
	t.Helper()
	d := tls.Dialer{Config: config}
	raw, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "https://"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = raw.Close() })
	conn, ok := raw.(*tls.Conn)
	require.True(t, ok)
	require.NoError(t, conn.SetDeadline(time.Now().Add(timeout)))
	return conn
}
