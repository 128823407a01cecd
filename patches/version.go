package patches

import (
	"slices"
	"strconv"
	"strings"
)

// proPrefix is in front of the version in the tags of Ambassador Pro's edge, as in
// ambassador_pro:amb-core-0.11.0. The same repository has other programs under other
// prefixes.
const proPrefix = "amb-core-"

// firstCalendarMajor is the first major version that is taken for a year or a build
// number, as in 24.04 or 2026.11. The edges that profiles know are far below it.
const firstCalendarMajor = 20

// isTagOlder reports whether the image's tag is a version below since. A tag that is
// not a version (latest, a date, a digest alone) counts as current.
func isTagOlder(image, since string) bool {
	v, ok := parseVersion(strings.TrimPrefix(tag(image), proPrefix))
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

// parseVersion reads the leading "1.14.4" of "v1.14.4-rc.2". Missing parts are 0. A
// date or a build number is no version: 2026.11, 24.04, 20261130.
func parseVersion(s string) (v [3]int, ok bool) {
	s = strings.TrimPrefix(s, "v")
	for i := range v {
		end := 0
		for end < len(s) && s[end] >= '0' && s[end] <= '9' {
			end++
		}
		n, err := strconv.Atoi(s[:end])
		if err != nil || end > 1 && s[0] == '0' || i == 0 && n >= firstCalendarMajor {
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
