// Package docs checks that the pages match the code.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func page(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(content)
}

// found returns what the expression's only group matches in the Go files of the
// folders, except for tests.
func found(t *testing.T, expression string, folders ...string) []string {
	t.Helper()
	var all []string
	for _, folder := range folders {
		files, err := filepath.Glob(filepath.Join("..", folder, "*.go"))
		require.NoError(t, err)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for _, match := range regexp.MustCompile(expression).FindAllStringSubmatch(page(t, file), -1) {
				all = append(all, match[1])
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func TestEveryKeyIsDocumented(t *testing.T) {
	ours := found(t, `= Domain \+ "([a-z-]+)"`, "webhook/policy")
	require.Contains(t, ours, "cert-dir")
	annotations := page(t, "annotations.md")
	for _, key := range ours {
		assert.Contains(t, annotations, "`isthmus.dev/"+key+"`")
	}
	istios := found(t, `Istio(?:Proxy(?:Image|CPU|Memory|CPULimit|MemLimit)|LogLevel|AgentLogLevel|StatusPort)Key\s+= "([^"]+)"`, "webhook/policy")
	require.Contains(t, istios, "sidecar.istio.io/proxyImage")
	for _, key := range istios {
		assert.Contains(t, annotations, "`"+key+"`")
	}
}

func TestDocumentedKeysExist(t *testing.T) {
	known := found(t, `= Domain \+ "([a-z-]+)"`, "webhook/policy")
	for name, text := range pages(t) {
		for _, match := range regexp.MustCompile(`\b(?:pod\.|namespace\.)?isthmus\.dev/([a-z-]+)`).FindAllStringSubmatch(text, -1) {
			isWebhook := strings.HasPrefix(match[0], "pod.") || strings.HasPrefix(match[0], "namespace.")
			if isWebhook || match[1] == "delivry" { // a misspelling that the pages show
				continue
			}
			assert.Contains(t, known, match[1], "%s names %s", name, match[0])
		}
	}
}

func TestEveryReasonIsExplained(t *testing.T) {
	reasons := found(t, `Reason = "([a-z-]+)"`, "webhook/policy")
	require.Contains(t, reasons, "already-injected")
	for _, reason := range reasons {
		assert.Contains(t, page(t, "troubleshooting.md"), "| `"+reason+"` |")
	}
}

func TestEveryWarningIsExplained(t *testing.T) {
	codes := found(t, `(?:\.warn\(|Warning\{)"([a-z-]+)"`, "webhook/policy", "webhook/inject")
	require.Contains(t, codes, "files-only")
	_, warnings, cut := strings.Cut(page(t, "troubleshooting.md"), "## Warning codes")
	require.True(t, cut)
	for _, code := range codes {
		assert.Contains(t, warnings, "`"+code+"`")
	}
}

func TestEveryFieldOfAProfileIsExplained(t *testing.T) {
	content := page(t, filepath.Join("..", "patches", "profile.go"))
	fields := regexp.MustCompile("`json:\"([A-Za-z]+)").FindAllStringSubmatch(content, -1)
	require.NotEmpty(t, fields)
	profiles := page(t, "profiles.md")
	for _, match := range fields {
		field := match[1]
		assert.Regexp(t, "`(?:env\\[\\]\\.|files\\.|secret\\.)?"+field+"`", profiles)
	}
}

func TestLinksResolve(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for name, text := range pages(t) {
		for _, match := range link.FindAllStringSubmatch(text, -1) {
			path, anchor, _ := strings.Cut(match[1], "#")
			if strings.Contains(path, "://") {
				continue
			}
			target := name
			if path != "" {
				target = filepath.Join(filepath.Dir(name), path)
			}
			_, err := os.Stat(target)
			if assert.NoError(t, err, "%s links to %s", name, match[1]) && anchor != "" {
				assert.Contains(t, anchors(page(t, target)), anchor, "%s links to %s", name, match[1])
			}
		}
	}
}

// anchors are the headings of a page, as GitHub names them.
func anchors(text string) []string {
	var out []string
	for _, match := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		name := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(match[1]), "")
		out = append(out, strings.ReplaceAll(name, " ", "-"))
	}
	return out
}

// pages are the repository's pages for users, by path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, pattern := range []string{"*.md", filepath.Join("guides", "*.md"), filepath.Join("..", "*.md"), filepath.Join("..", "test", "*.md")} {
		names, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, name := range names {
			out[name] = page(t, name)
		}
	}
	require.Contains(t, out, filepath.Join("..", "README.md"))
	return out
}

// A Mapping without scheme sends clear text when its certificate is missing, and one
// without port goes to 443: no page and no sample shows such a one, except where that is
// the subject.
func TestMappingsNameSchemeAndPort(t *testing.T) {
	const subject = "https://quote" // guides/ports.md
	texts := pages(t)
	require.NoError(t, filepath.WalkDir(filepath.Join("..", "samples"), func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".yaml") {
			texts[path] = page(t, path)
		}
		return err
	}))
	mapping := regexp.MustCompile(`(?s)\nkind: (?:TCP)?Mapping\n.*?(?:\n---\n|\nEOF\n|\n` + "```" + `\n|\z)`)
	service := regexp.MustCompile(`(?m)^  service: (\S+)`)
	patched := regexp.MustCompile(`mapping .*"service": "([^"]+)"`)
	mappings := 0
	check := func(name, value string, hasTLS bool) {
		mappings++
		if value == subject && strings.HasSuffix(name, "ports.md") {
			return
		}
		assert.Regexp(t, `^https?://[a-z0-9.-]+:\d+$`, value, "%s: scheme, host and port", name)
		assert.Equal(t, hasTLS, strings.HasPrefix(value, "https://"), "%s: tls belongs to https (%s)", name, value)
	}
	for name, text := range texts {
		for _, block := range mapping.FindAllString(text, -1) {
			match := service.FindStringSubmatch(block)
			require.NotNil(t, match, "%s: %s", name, block)
			check(name, match[1], strings.Contains(block, "\n  tls: "))
		}
		for _, match := range patched.FindAllStringSubmatch(text, -1) {
			check(name, match[1], strings.HasPrefix(match[1], "https://"))
		}
	}
	assert.Greater(t, mappings, 10)
}
