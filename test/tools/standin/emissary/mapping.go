package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// mapping holds the fields of a Mapping (getambassador.io) that the stand-in supports.
type mapping struct {
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Prefix  string `json:"prefix"`
		Service string `json:"service"`
		Weight  int    `json:"weight"`
		TLS     string `json:"tls"`
	} `json:"spec"`
}

func resource(name string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "getambassador.io", Version: "v3alpha1", Resource: name}
}

// findMapping returns the Mapping for a path, at random if weights are set; nil if there
// is none.
func (e *edge) findMapping(ctx context.Context, path string) (*mapping, error) {
	list, err := e.client.Resource(resource("mappings")).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("read Mappings: %w", err)
	}
	var all []*mapping
	for _, item := range list.Items {
		m := &mapping{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(item.Object, m); err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return chooseMapping(all, path, rand.IntN(100), rand.IntN), nil
}

// chooseMapping returns one of the Mappings with the longest matching prefix. A Mapping
// with a weight gets this percentage of the requests; those without a weight share the
// rest. percentile is a random number below 100, randomIndex returns a random number
// below its argument.
func chooseMapping(all []*mapping, path string, percentile int, randomIndex func(int) int) *mapping {
	var matching, unweighted []*mapping
	longest := 0
	for _, m := range all {
		switch prefix := len(m.Spec.Prefix); {
		case !strings.HasPrefix(path, m.Spec.Prefix), prefix < longest:
			continue
		case prefix > longest:
			matching, longest = nil, prefix
		}
		matching = append(matching, m)
	}
	for _, m := range matching {
		if m.Spec.Weight == 0 {
			unweighted = append(unweighted, m)
			continue
		}
		if percentile < m.Spec.Weight {
			return m
		}
		percentile -= m.Spec.Weight
	}
	if len(unweighted) > 0 {
		return unweighted[randomIndex(len(unweighted))]
	}
	if len(matching) > 0 {
		return matching[len(matching)-1]
	}
	return nil
}

// upstream returns the address of a Mapping's service and its TLS settings, nil for plain
// text. The default port is 80, or 443 with TLS.
func (e *edge) upstream(ctx context.Context, m *mapping) (*tlsContext, string, error) {
	host, secure := strings.CutPrefix(m.Spec.Service, "https://")
	host = strings.TrimPrefix(host, "http://")
	port := "80"
	var c *tlsContext
	switch {
	case m.Spec.TLS != "":
		var err error
		if c, err = e.readTLSContext(ctx, m.Spec.TLS); err != nil {
			return nil, "", err
		}
		port = "443"
	case secure:
		c, port = &tlsContext{}, "443"
	}
	if h, p, err := net.SplitHostPort(host); err == nil {
		host, port = h, p
	}
	if !strings.Contains(host, ".") {
		host += "." + m.Namespace
	}
	return c, net.JoinHostPort(host, port), nil
}
