package main

import (
	"fmt"
	"strings"
)

// There is no Envoy here. The agent of a sidecar runs without it and requests the
// configuration for gRPC's own xDS from istiod, as with Istio's template grpc-agent. The
// workload's stand-in (../workload) does Envoy's work.

const (
	// envoyProbePort is Envoy's port for readiness probes, agentProbePort the agent's.
	envoyProbePort = 15021
	agentProbePort = 15020
	// proxyFolder is the folder that the agent and the workload share.
	proxyFolder = "/etc/istio/proxy"
	sidecarName = "istio-proxy"
)

// runsEnvoy reports whether this container would run Envoy.
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

// disableEnvoy changes the environment of a sidecar that would run Envoy, so that its
// agent runs without it.
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

// proxyFolderMounts returns the mount through which a workload reads the files of its
// agent; none if its pod has no sidecar with Envoy.
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

// addWorkloadVariables sets the variables that the workload's stand-in needs: its ports,
// its address, its image and the agent's bootstrap file.
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
