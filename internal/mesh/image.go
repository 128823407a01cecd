package mesh

import (
	"fmt"
	"strings"
)

// proxyImage composes the sidecar's image as Istio's injector does. An image with
// a slash is the whole reference. Otherwise the reference is hub/image:tag, and an
// image type replaces the type suffix of the tag. The result is empty when neither
// hub nor tag is known.
func proxyImage(v injectorValues, imageType string) (string, error) {
	image := v.Global.Proxy.Image
	if strings.Contains(image, "/") {
		return image, nil
	}
	hub, tag := v.Global.Hub, string(v.Global.Tag)
	switch {
	case hub == "" && tag == "":
		return "", nil
	case hub == "":
		return "", fmt.Errorf("global.tag is %q and global.hub is empty: the proxy image needs both", tag)
	case tag == "":
		return "", fmt.Errorf("global.hub is %q and global.tag is empty: the proxy image needs both", hub)
	}
	if image == "" {
		image = "proxyv2"
	}
	if imageType == "" {
		imageType = v.Global.Variant
	}
	return hub + "/" + image + ":" + withImageType(tag, imageType), nil
}

// withImageType returns tag with its image type replaced by imageType. The type
// "default" has no suffix.
func withImageType(tag, imageType string) string {
	if imageType == "" {
		return tag
	}
	for _, known := range []string{"-distroless", "-debug"} {
		if rest, ok := strings.CutSuffix(tag, known); ok {
			tag = rest
			break
		}
	}
	if imageType == "default" {
		return tag
	}
	return tag + "-" + imageType
}
