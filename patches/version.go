package patches

import (
	"slices"
	"strconv"
	"strings"
)

// isTagOlder reports whether the image's tag is a version below since. A tag that is
// not a version (latest, a digest alone) counts as current.
func isTagOlder(image, since string) bool {
	v, ok := parseVersion(tag(image))
	return ok && isBelow(v, since)
}

func isBelow(v [3]int, since string) bool {
	limit, _ := parseVersion(since)
	return slices.Compare(v[:], limit[:]) < 0
}

func isVersion(s string) bool {
	_, ok := parseVersion(s)
	return ok
}

// parseVersion reads the leading "1.14.4" of "v1.14.4-rc.2". Missing parts are 0.
func parseVersion(s string) (v [3]int, ok bool) {
	s = strings.TrimPrefix(s, "v")
	for i := range v {
		end := 0
		for end < len(s) && s[end] >= '0' && s[end] <= '9' {
			end++
		}
		n, err := strconv.Atoi(s[:end])
		if err != nil {
			return v, false
		}
		v[i] = n
		s = s[end:]
		if s == "" || s[0] != '.' {
			return v, s == "" || i > 0 && (s[0] == '-' || s[0] == '+')
		}
		s = s[1:]
	}
	return v, true
}
