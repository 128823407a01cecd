//go:build guides

package guides

// istioTag is the tag of Istio's images: the release that follows from the version that
// test/tools/pilot pins.
const istioTag = "1.31.0"

// image names the programs that replace the contents of an image; the node reads it
// (test/tools/standin/kubenode).
type image struct {
	Repository string            `json:"repository"`
	Programs   map[string]string `json:"programs"`
	Entrypoint string            `json:"entrypoint"`
	Workload   bool              `json:"workload,omitempty"`
}

// workloads are the images of services in the mesh.
var workloads = []string{
	"istio/examples-bookinfo-productpage-v1",
	"istio/examples-bookinfo-details-v1",
	"istio/examples-bookinfo-ratings-v1",
	"istio/examples-bookinfo-reviews-v1",
	"istio/examples-bookinfo-reviews-v2",
	"istio/examples-bookinfo-reviews-v3",
	"datawire/quote",
}

// listImages returns the images and the programs that replace their contents.
func listImages(programs map[string]string) []image {
	newImage := func(repository, path, name string) image {
		return image{Repository: repository, Programs: map[string]string{path: programs[name]}, Entrypoint: path}
	}
	isthmus := newImage("isthmus-mesh/isthmus", "/isthmus", "isthmus")
	isthmus.Programs["/isthmus-publish"] = programs["isthmus-publish"]
	all := []image{
		newImage("pilot", "/usr/local/bin/pilot-discovery", "pilot-discovery"),
		newImage("proxyv2", "/usr/local/bin/pilot-agent", "pilot-agent"),
		isthmus,
		newImage("emissaryingress/emissary", "/emissary", "stand-in-edge"),
		newImage("datawire/aes", "/aes", "stand-in-edge"),
		newImage("install-cni", "/usr/local/bin/install-cni", "stand-in-cni"),
	}
	for _, repository := range workloads {
		workload := newImage(repository, "/service", "stand-in-service")
		workload.Workload = true
		all = append(all, workload)
	}
	return all
}
