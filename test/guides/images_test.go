//go:build guides

package guides

// istioTag is what the images of Istio are called: what the version that
// test/tools/pilot pins becomes.
const istioTag = "1.31.0"

// image is what stands for an image; the node reads it (test/tools/standin/kubenode).
type image struct {
	Repository string            `json:"repository"`
	Programs   map[string]string `json:"programs"`
	Entrypoint string            `json:"entrypoint"`
	Workload   bool              `json:"workload,omitempty"`
}

// workloads are images of services in the mesh.
var workloads = []string{
	"istio/examples-bookinfo-productpage-v1",
	"istio/examples-bookinfo-details-v1",
	"istio/examples-bookinfo-ratings-v1",
	"istio/examples-bookinfo-reviews-v1",
	"istio/examples-bookinfo-reviews-v2",
	"istio/examples-bookinfo-reviews-v3",
	"datawire/quote",
}

// images says what stands for which image.
func images(programs map[string]string) []image {
	one := func(repository, path, name string) image {
		return image{Repository: repository, Programs: map[string]string{path: programs[name]}, Entrypoint: path}
	}
	isthmus := one("isthmus-mesh/isthmus", "/isthmus", "isthmus")
	isthmus.Programs["/isthmus-publish"] = programs["isthmus-publish"]
	all := []image{
		one("pilot", "/usr/local/bin/pilot-discovery", "pilot-discovery"),
		one("proxyv2", "/usr/local/bin/pilot-agent", "pilot-agent"),
		isthmus,
		one("emissaryingress/emissary", "/emissary", "stand-in-edge"),
		one("datawire/aes", "/aes", "stand-in-edge"),
		one("install-cni", "/usr/local/bin/install-cni", "stand-in-cni"),
	}
	for _, repository := range workloads {
		w := one(repository, "/service", "stand-in-service")
		w.Workload = true
		all = append(all, w)
	}
	return all
}
