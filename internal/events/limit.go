package events

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	// maxNote and maxInstance are the longest note and instance that the events API
	// accepts, in bytes.
	maxNote     = 1024
	maxInstance = 128
)

// limitText cuts a text to a number of bytes, between two characters. Bytes that are
// no UTF-8 are replaced first: JSON would make them longer.
func limitText(text string, limit int) string {
	const ellipsis = "..."
	text = strings.ToValidUTF8(text, "?")
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit-len(ellipsis)], "") + ellipsis
}

// nameOf is the name of an Event about an object, as client-go names Events: the
// object's name and the time. A name that would be too long is cut.
func nameOf(object string, at time.Time) string {
	suffix := fmt.Sprintf("%x", at.UnixNano())
	object = object[:min(len(object), validation.DNS1123SubdomainMaxLength-len(suffix)-1)]
	object = strings.TrimRight(object, "-.") // each label ends with a letter or digit
	if name := object + "." + suffix; len(validation.IsDNS1123Subdomain(name)) == 0 {
		return name
	}
	return "event." + suffix // objects of some kinds, such as roles, have other names
}
