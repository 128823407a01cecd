package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func TestAssembleIsReproducible(t *testing.T) {
	folder := t.TempDir()
	program := filepath.Join(folder, "program")
	tree := filepath.Join(folder, "tree")
	for _, err := range []error{
		os.WriteFile(program, []byte("program"), 0o600), os.MkdirAll(filepath.Join(tree, "usr/lib"), 0o700),
		os.WriteFile(filepath.Join(tree, "usr/lib/x.so.1"), []byte("library"), 0o755), os.Symlink("x.so.1", filepath.Join(tree, "usr/lib/x.so")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var tarballs [2][]byte
	for i := range tarballs {
		d := description{
			Name: "registry.test/a/b:c", Output: filepath.Join(t.TempDir(), "image.tar"), User: "1:2", Entrypoint: []string{"/usr/bin/p"}, Env: []string{"A=B"},
			Layers: []layer{{Folder: tree}, {Files: []file{{Path: "/usr/bin/p", Source: program, Mode: 0o755}}}},
		}
		text, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if err := run(bytes.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		if tarballs[i], err = os.ReadFile(d.Output); err != nil {
			t.Fatal(err)
		}
		image, err := tarball.ImageFromPath(d.Output, nil)
		if err != nil {
			t.Fatal(err)
		}
		config, err := image.ConfigFile()
		if err != nil || config.Config.User != "1:2" || config.Config.Entrypoint[0] != "/usr/bin/p" || config.Config.Env[0] != "A=B" {
			t.Errorf("configuration %+v, %v", config.Config, err)
		}
		content := mutate.Extract(image)
		found := map[string]string{}
		listFiles(t, content, found)
		if want := map[string]string{"usr": "755", "usr/bin": "755", "usr/lib": "755", "usr/bin/p": "755", "usr/lib/x.so.1": "755", "usr/lib/x.so": "777"}; !maps.Equal(found, want) {
			t.Errorf("files %v, want %v", found, want)
		}
	}
	if !bytes.Equal(tarballs[0], tarballs[1]) {
		t.Error("the same description resulted in two different tarballs")
	}
}

func TestAssembleRejectsInvalidDescriptions(t *testing.T) {
	for name, test := range map[string]struct{ description, want string }{
		"if a field is unknown, expect its name":    {`{"label": "a"}`, `unknown field "label"`},
		"if the name has no tag, expect an error":   {`{"name": "a/b"}`, "image a/b: "},
		"if a layer is empty, expect an error":      {`{"name": "r.test/aa:b", "layers": [{}]}`, "layer 0: no file is in it"},
		"if a path is relative, expect an error":    {`{"name": "r.test/aa:b", "layers": [{"files": [{"path": "x", "mode": 493}]}]}`, "want a path from / and permissions"},
		"if a file does not exist, expect its path": {`{"name": "r.test/aa:b", "layers": [{"files": [{"path": "/x", "source": "/nowhere/x", "mode": 493}]}]}`, "/nowhere/x"},
	} {
		t.Run(name, func(t *testing.T) {
			err := run(strings.NewReader(test.description))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %s", err, test.want)
			}
		})
	}
}
