package builder

import (
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

func TestFindKnowsEveryTool(t *testing.T) {
	for _, name := range Names() {
		module, tool, err := Find(name)
		if err != nil || tool.Name != name || module.Folder == "" {
			t.Errorf("Find(%q) = %+v, %+v, %v", name, module, tool, err)
		}
	}
	_, _, err := Find("nonsense")
	want := `unknown tool "nonsense": choose from ` + strings.Join(append(Names(), "prometheus", "promtool"), ", ")
	if errorText(err) != want {
		t.Errorf("Find(nonsense): error %v, want %s", err, want)
	}
}

func TestRootIsFoundFromAnyFolder(t *testing.T) {
	root := t.TempDir()
	writeFile(t, filepath.Join(root, "test/tools/kubernetes/go.mod"), "module x\n")
	for _, from := range []string{"", "test", "test/tools", "test/tools/kubernetes"} {
		found, err := Root(filepath.Join(root, from))
		if err != nil || found != root {
			t.Errorf("Root(%q) = %q, %v, want %q", from, found, err, root)
		}
	}
	elsewhere := t.TempDir()
	_, err := Root(elsewhere)
	want := "no test/tools/kubernetes/go.mod at or above " + elsewhere + ": run this inside the repository"
	if err == nil || err.Error() != want {
		t.Errorf("Root(elsewhere): error %v, want %s", err, want)
	}
}

func TestRequiredVersion(t *testing.T) {
	const path = "k8s.io/kubernetes"
	for name, test := range map[string]struct{ goMod, version, err string }{
		"if a block requires it, expect its version":       {goMod: "require (\n\tk8s.io/kubernetes v1.36.3 // indirect\n)", version: "v1.36.3"},
		"if a line requires it, expect its version":        {goMod: "require k8s.io/kubernetes v1.36.3", version: "v1.36.3"},
		"if only a tool names it, expect an error":         {goMod: "tool k8s.io/kubernetes", err: "no version of k8s.io/kubernetes is required"},
		"if only a replacement names it, expect an error":  {goMod: "replace k8s.io/kubernetes v1.2.3 => k8s.io/kubernetes v1.36.3", err: "no version of k8s.io/kubernetes is required"},
		"if a longer path starts with it, expect an error": {goMod: "require k8s.io/kubernetes/v2 v2.0.0", err: "no version of k8s.io/kubernetes is required"},
	} {
		t.Run(name, func(t *testing.T) {
			version, err := requiredVersion(test.goMod, path)
			if version != test.version || errorText(err) != test.err {
				t.Errorf("required = %q, %v, want %q, %q", version, err, test.version, test.err)
			}
		})
	}
}

func TestLinkerFlagsTakeVersionsFromGoMod(t *testing.T) {
	module, _, err := Find("kube-apiserver")
	if err != nil {
		t.Fatal(err)
	}
	flags, err := module.linkerFlags("require (\n\tk8s.io/kubernetes v1.40.7 // indirect\n)\n")
	want := "-s -w -X k8s.io/component-base/version.gitVersion=v1.40.7" +
		" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=40"
	if err != nil || flags != want {
		t.Errorf("linkerFlags = %q, %v, want %q", flags, err, want)
	}
	if _, err := module.linkerFlags("module x\n"); errorText(err) != "test/tools/kubernetes/go.mod: no version of k8s.io/kubernetes is required" {
		t.Errorf("linkerFlags of an empty go.mod: error %v", err)
	}
}

// Every module of the catalogue exists, pins its tools and has valid linker variables.
func TestCatalogueMatchesTheRepository(t *testing.T) {
	workingFolder, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	root, err := Root(workingFolder)
	if err != nil {
		t.Fatal(err)
	}
	for _, module := range Catalogue() {
		if _, err := module.buildPlan(root, "/cache"); err != nil {
			t.Errorf("%s: %v", module.Name, err)
		}
		goMod, err := os.ReadFile(filepath.Join(root, module.Folder, "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		for _, tool := range module.Tools {
			if strings.Contains(string(goMod), "module "+tool.Package+"\n") ||
				strings.Contains(string(goMod), "module "+path.Dir(tool.Package)+"\n") {
				continue // the program is a package of this module
			}
			if !strings.Contains(string(goMod), "\t"+tool.Package+"\n") && !strings.Contains(string(goMod), "tool "+tool.Package+"\n") {
				t.Errorf("%s/go.mod has no tool %s", module.Folder, tool.Package)
			}
		}
	}
}

func TestOutputNameSkipsMajorVersions(t *testing.T) {
	for importPath, want := range map[string]string{
		"k8s.io/kubernetes/cmd/kubectl": "kubectl",
		"go.etcd.io/etcd/server/v3":     "server",
		"example.com/v8engine":          "v8engine",
	} {
		if name := outputName(importPath); name != want {
			t.Errorf("outputName(%s) = %s, want %s", importPath, name, want)
		}
	}
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
