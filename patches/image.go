package patches

import (
	"slices"
	"strconv"
	"strings"
)

// repository cuts tag and digest off an image, by the rule that a tag holds no
// slash. It never fails: what is no image just matches nothing.
func repository(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		image = image[:i]
	}
	return image
}

// tag returns the image's tag, empty when it has none.
func tag(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		return image[i+1:]
	}
	return ""
}

// endsWithPath reports whether repo ends with suffix at a segment boundary.
func endsWithPath(repo, suffix string) bool {
	if !strings.HasSuffix(repo, suffix) {
		return false
	}
	rest := len(repo) - len(suffix)
	return rest == 0 || repo[rest-1] == '/'
}

// olderThan reports whether the image's tag is a version below since. A tag
// that is no version (latest, a digest alone) counts as current.
func olderThan(image, since string) bool {
	have, ok := version(tag(image))
	return ok && isBelow(have, since)
}

func isBelow(have [3]int, since string) bool {
	want, _ := version(since)
	return slices.Compare(have[:], want[:]) < 0
}

func isVersion(s string) bool {
	_, ok := version(s)
	return ok
}

// version reads the leading "1.14.4" of "v1.14.4-rc.2"; missing parts are 0.
func version(s string) (v [3]int, ok bool) {
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
