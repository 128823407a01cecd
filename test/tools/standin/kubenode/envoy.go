package main

import (
	"fmt"
	"strings"
)

// Envoy cannot run here. Where a sidecar would run it, its agent runs without it,
// and asks istiod for the configuration of gRPC's own xDS instead, as Istio's
// template grpc-agent has it; the workload (../workload) takes its part.

const (
	// envoyReadiness is Envoy's port for probes, agentReadiness the agent's.
	envoyReadiness = 15021
	agentReadiness = 15020
	// proxyFolder is where agent and workload meet.
	proxyFolder = "/etc/istio/proxy"
	sidecarName = "istio-proxy"
)

// envoy says whether this container would run Envoy.
func (u *unit) envoy() bool {
	if u.spec.Name != sidecarName {
		return false
	}
	for _, e := range u.spec.Env {
		if e.Name == "DISABLE_ENVOY" && e.Value == "true" {
			return false
		}
	}
	return true
}

// withoutEnvoy changes the environment of a sidecar that would run Envoy.
func (u *unit) withoutEnvoy(env map[string]string) {
	if !u.envoy() {
		return
	}
	env["DISABLE_ENVOY"] = "true"
	env["ISTIO_META_GENERATOR"] = "grpc"
	env["GRPC_XDS_BOOTSTRAP"] = proxyFolder + "/grpc-bootstrap.json"
	if env["OUTPUT_CERTS"] == "" {
		env["OUTPUT_CERTS"] = proxyFolder
	}
}

// meeting is the mount that a workload needs to see what its agent says; none
// where its pod has no sidecar with an Envoy.
func (u *unit) meeting() []bind {
	if u.spec.Name == sidecarName {
		return nil
	}
	for _, other := range append(append([]*unit{}, u.pod.init...), u.pod.main...) {
		if !other.envoy() {
			continue
		}
		for _, m := range other.spec.VolumeMounts {
			if strings.TrimSuffix(m.MountPath, "/") == proxyFolder {
				return []bind{{Source: u.pod.volume(m.Name), Target: proxyFolder}}
			}
		}
	}
	return nil
}

// introduce tells a workload what its image would know by itself, and where its
// agent is.
func (u *unit) introduce(env map[string]string) {
	var ports []string
	for _, p := range u.spec.Ports {
		ports = append(ports, fmt.Sprint(p.ContainerPort))
	}
	image := u.spec.Image[strings.LastIndex(u.spec.Image, "/")+1:]
	env["STAND_IN_PORTS"], env["STAND_IN_ADDRESS"], env["STAND_IN_IMAGE"] = strings.Join(ports, ","), u.pod.box.ip, image
	if len(u.meeting()) > 0 {
		env["GRPC_XDS_BOOTSTRAP"] = proxyFolder + "/grpc-bootstrap.json"
	}
}
