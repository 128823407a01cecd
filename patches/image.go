package patches

import "strings"

// repository returns an image without tag and digest. A tag holds no slash. For a
// text that is not an image, the result is one that no profile matches.
func repository(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		image = image[:i]
	}
	return image
}

// tag returns the image's tag, or "" if it has none.
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
