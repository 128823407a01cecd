package main

import (
	"fmt"
	"strings"
)

// Envoy cannot run here. Where a sidecar would run it, its agent runs without it,
// and asks istiod for the configuration of gRPC's own xDS instead, as Istio's
// template grpc-agent has it; the workload (../workload) takes its part.

const (
	// envoyProbePort is Envoy's port for probes, agentReadiness the agent's.
	envoyProbePort = 15021
	agentProbePort = 15020
	// proxyFolder is where agent and workload meet.
	proxyFolder = "/etc/istio/proxy"
	sidecarName = "istio-proxy"
)

// runsEnvoy says whether this container would run Envoy.
func (pc *podContainer) runsEnvoy() bool {
	if pc.spec.Name != sidecarName {
		return false
	}
	for _, e := range pc.spec.Env {
		if e.Name == "DISABLE_ENVOY" && e.Value == "true" {
			return false
		}
	}
	return true
}

// disableEnvoy changes the environment of a sidecar that would run Envoy.
func (pc *podContainer) disableEnvoy(env map[string]string) {
	if !pc.runsEnvoy() {
		return
	}
	env["DISABLE_ENVOY"] = "true"
	env["ISTIO_META_GENERATOR"] = "grpc"
	env["GRPC_XDS_BOOTSTRAP"] = proxyFolder + "/grpc-bootstrap.json"
	if env["OUTPUT_CERTS"] == "" {
		env["OUTPUT_CERTS"] = proxyFolder
	}
}

// proxyFolderMounts is the mount that a workload needs to see what its agent says; none
// where its pod has no sidecar with an Envoy.
func (pc *podContainer) proxyFolderMounts() []bindMount {
	if pc.spec.Name == sidecarName {
		return nil
	}
	for _, other := range append(append([]*podContainer{}, pc.pod.init...), pc.pod.main...) {
		if !other.runsEnvoy() {
			continue
		}
		for _, m := range other.spec.VolumeMounts {
			if strings.TrimSuffix(m.MountPath, "/") == proxyFolder {
				return []bindMount{{Source: pc.pod.volumeFolder(m.Name), Target: proxyFolder}}
			}
		}
	}
	return nil
}

// addWorkloadVariables tells a workload what its image would know by itself, and where its
// agent is.
func (pc *podContainer) addWorkloadVariables(env map[string]string) {
	var ports []string
	for _, p := range pc.spec.Ports {
		ports = append(ports, fmt.Sprint(p.ContainerPort))
	}
	image := pc.spec.Image[strings.LastIndex(pc.spec.Image, "/")+1:]
	env["STAND_IN_PORTS"], env["STAND_IN_ADDRESS"], env["STAND_IN_IMAGE"] = strings.Join(ports, ","), pc.pod.sandbox.ip, image
	if len(pc.proxyFolderMounts()) > 0 {
		env["GRPC_XDS_BOOTSTRAP"] = proxyFolder + "/grpc-bootstrap.json"
	}
}
