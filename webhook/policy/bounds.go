package policy

import (
	"fmt"
	"strings"
)

// Limits in bytes of the values that are parsed. A longer value is reported with its
// length: parsing it would cost time that its author does not pay for, and repeating
// it would fill answers and logs.
const (
	// maxShort is for values with few characters: words, quantities, durations, ports.
	maxShort = 64
	// maxName is the longest name of an object in Kubernetes.
	maxName = 253
	// maxLong is for directories, images and lists of log levels.
	maxLong = 512
)

// valueLimits are the limits of the keys whose values may be longer than maxShort.
var valueLimits = map[string]int{
	ProfileKey: maxName, ContainerKey: maxName, SecretNameKey: maxName, ServiceAccountKey: maxName,
	MirrorSecretKey: maxName, TLSContextKey: maxName,
	CertDirKey: maxLong, IstioProxyImageKey: maxLong, IstioLogLevelKey: maxLong, IstioAgentLogLevelKey: maxLong,
}

// valueLimit returns how many bytes of a key's value are read at most.
func valueLimit(key string) int {
	if limit, ok := valueLimits[key]; ok {
		return limit
	}
	return maxShort
}

// parseBounded calls parse unless the value is too long. It returns what is allowed if
// the value is invalid, else "".
func parseBounded(key, value string, parse func(string) string) string {
	if limit := valueLimit(key); len(value) > limit {
		return fmt.Sprintf("want at most %d bytes", limit)
	}
	return parse(value)
}

// notAllowed says in a sentence that a value is not allowed, and what is.
func notAllowed(key, value, want string) string {
	return key + ": " + Quote(key, value) + " is not allowed; " + want
}

// Quote quotes a value for a sentence. Of a value that is too long it gives the length.
func Quote(key, value string) string {
	if len(value) > valueLimit(key) {
		return fmt.Sprintf("a value of %d bytes", len(value))
	}
	return fmt.Sprintf("%q", value)
}

// Clip cuts a text to at most limit bytes, between two characters, and marks the cut.
func Clip(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit-len(ellipsis)], "") + ellipsis
}

const ellipsis = "..."
