package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
)

func addSeeds(f *testing.F) {
	inputs, err := filepath.Glob("testdata/*.in.*")
	if err != nil || len(inputs) == 0 {
		f.Fatal("no seeds in testdata")
	}
	for _, input := range inputs {
		data, err := os.ReadFile(input)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n")))
	}
	f.Add([]byte(edgePod))
	f.Add([]byte("\xef\xbb\xbf%YAML 1.1\n---\n" + edgePod + "...\n# x\n---"))
	f.Add([]byte("{}{} \r[]"))
}

// FuzzSplit looks for streams that change when they are split and joined again, and for
// documents with a wrong line.
func FuzzSplit(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		line := 1
		documents := splitDocuments(data)
		if got := rejoin(documents); !bytes.Equal(got, data) {
			t.Fatalf("%q came out as %q", data, got)
		}
		for _, d := range documents {
			if want := line + countLines(d.prefix); d.line != want && !bytes.Contains(data, []byte("\r")) {
				t.Fatalf("%q: body %q on line %d, want %d", data, d.body, d.line, want)
			}
			line = d.line + countLines(d.body) + countLines(d.suffix)
		}
	})
}

// FuzzTransform looks for panics, for bytes that change without an edit, and for edits
// that break other documents.
func FuzzTransform(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		started := time.Now()
		defer func() {
			// The limit is for inputs that make Transform almost hang. It is
			// generous because the machine can be busy.
			if took := time.Since(started); took > 30*time.Second {
				t.Fatalf("%q took %s", data, took)
			}
		}()
		sources := []Source{{"in", data}}
		same, err := Transform(sources, "default", func(Workload) Edit { return Edit{} })
		if err == nil && !bytes.Equal(same.Text(), data) {
			t.Fatalf("%q came out as %q", data, same.Text())
		}
		result, err := Transform(sources, "default", fakeEditor)
		if err != nil {
			return
		}
		if _, err := result.JSON(); err != nil {
			t.Logf("no JSON: %v", err)
		}
		if _, err := result.Diff(true); err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		for _, d := range result.Documents {
			if !d.Changed() {
				continue
			}
			raw, err := toJSON(rawDocument{body: d.After, isJSON: d.JSON})
			if err == nil && !json.Valid(raw) {
				err = errors.New("invalid JSON")
			}
			if err != nil {
				t.Fatalf("%q became %q: %v", d.Before, d.After, err)
			}
		}
		repeated, err := Transform([]Source{{"out", result.Text()}}, "default", func(Workload) Edit { return Edit{} })
		if err != nil {
			t.Fatalf("%q became %q: %v", data, result.Text(), err)
		}
		if len(repeated.Decisions) != len(result.Decisions) {
			t.Fatalf("%q became %q: %d workloads, want %d", data, result.Text(), len(repeated.Decisions), len(result.Decisions))
		}
	})
}

// FuzzUninject looks for manifests that do not come back when an injection is reverted: the
// same values always, and the same bytes if the text was edited in place and has no aliases.
func FuzzUninject(f *testing.F) {
	addSeeds(f)
	engine, err := inject.New(inject.Options{})
	if err != nil {
		f.Fatal(err)
	}
	edge := strings.Replace(edgePod, "image: edge", "image: emissaryingress/emissary:4.1.0", 1)
	f.Add([]byte(edge))
	f.Add([]byte(strings.Replace(edge, "spec:\n", "spec:\n  volumes: # none\n", 1)))
	f.Add([]byte("---\n{\n  apiVersion: \"v1\", kind: Pod,\n  metadata: { # x\n    annotations: ~,\n  },\n  spec: {containers: [{\n    image: \"emissaryingress/emissary\",\n    name: e,\n  }]}\n}\n"))
	f.Add([]byte(`{"kind":"Pod","apiVersion":"v1","metadata":{"labels":null},"spec":{"containers":[{"name":"e","image":"emissaryingress/emissary"}],"volumes":[ ]}} {"a":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		sources := []Source{{"in", data}}
		injected, err := Transform(sources, "default", InjectEditor(engine))
		if err != nil {
			return
		}
		back, err := Transform([]Source{{"out", injected.Text()}}, "default", UninjectEditor(inject.Uninject))
		if err != nil {
			t.Fatalf("%q became %q: %v", data, injected.Text(), err)
		}
		inPlace := !bytes.Contains(data, []byte("&")) && !bytes.Contains(data, []byte("<<"))
		for _, d := range injected.Documents {
			inPlace = inPlace && !d.rewritten
		}
		for _, d := range back.Documents {
			inPlace = inPlace && !d.rewritten
		}
		if inPlace && !bytes.Equal(back.Text(), data) {
			t.Fatalf("%q became %q and came back as %q", data, injected.Text(), back.Text())
		}
		want, err := Transform(sources, "default", func(Workload) Edit { return Edit{} })
		if err != nil {
			t.Fatal(err)
		}
		wantJSON, wantErr := want.JSON()
		gotJSON, gotErr := back.JSON()
		if wantErr == nil && (gotErr != nil || !bytes.Equal(compact(t, wantJSON), compact(t, gotJSON))) {
			t.Fatalf("%q became %q and came back as %q (%v)", data, injected.Text(), back.Text(), gotErr)
		}
	})
}

// compact returns JSON values with sorted keys.
func compact(t *testing.T, text []byte) []byte {
	var out bytes.Buffer
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	for dec.More() {
		var value any
		if err := dec.Decode(&value); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		raw, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(raw)
	}
	return out.Bytes()
}
