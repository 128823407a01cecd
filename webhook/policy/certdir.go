package policy

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// systemDirs must not be hidden by a mount, in the edge or in the agent.
var systemDirs = []string{
	"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/proc",
	"/root", "/run", "/sbin", "/sys", "/tmp", "/usr", "/usr/bin", "/usr/lib", "/var",
}

// kernelDirs must not contain a mount at all.
var kernelDirs = []string{"/dev", "/proc", "/sys"}

// ParseCertDir cleans the path of a certificate directory and returns what is wrong
// with it, or "". Emissary compares directories as exact strings, so a trailing
// slash is cut.
func ParseCertDir(v string) (dir, problem string) {
	if limit := valueLimit(CertDirKey); len(v) > limit {
		return "", fmt.Sprintf("want at most %d bytes", limit)
	}
	dir = path.Clean(v)
	switch {
	case !path.IsAbs(v) || strings.ContainsAny(v, ":\x00\n$"):
		return dir, "want an absolute path such as /etc/istio-certs, without colon or dollar sign"
	case slices.Contains(strings.Split(v, "/"), ".."): // the API server refuses it in a mountPath
		return dir, "want a path without .., such as /etc/istio-certs"
	case slices.Contains(systemDirs, dir):
		return dir, "a mount there would hide what the containers need; want a dedicated directory such as /etc/istio-certs"
	}
	resolved := dir
	if strings.HasPrefix(resolved, "/run/") { // in most images /var/run links to /run
		resolved = "/var" + resolved
	}
	for _, a := range reservedDirs {
		if resolved == a || isBelow(resolved, a) || isBelow(a, resolved) {
			return dir, "the agent uses " + a + " itself; want another directory such as /etc/istio-certs"
		}
	}
	for _, k := range kernelDirs {
		if isBelow(resolved, k) {
			return dir, k + " belongs to the kernel; want another directory such as /etc/istio-certs"
		}
	}
	return dir, ""
}

func isBelow(p, dir string) bool { return strings.HasPrefix(p, dir+"/") }
