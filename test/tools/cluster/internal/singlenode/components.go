//go:build linux

package singlenode

import (
	"context"
	"encoding/json"
	"os"

	"github.com/isthmus-mesh/isthmus/test/tools/cluster/internal/apiserver"
)

// startScheduler starts the kube-scheduler.
func (n *node) startScheduler(ctx context.Context) error {
	kubeconfig, err := n.controlPlane.IssueKubeconfig("scheduler", "system:kube-scheduler")
	if err != nil {
		return err
	}
	return n.controlPlane.Run(ctx, apiserver.Component{
		Name:    "kube-scheduler",
		Program: n.Programs["kube-scheduler"],
		Arguments: []string{
			"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
			"--bind-address=127.0.0.1", "--leader-elect=false", "--v=0",
		},
	})
}

// startKubelet starts the kubelet and returns when its Node is ready.
func (n *node) startKubelet(ctx context.Context) error {
	kubeconfig, err := n.controlPlane.IssueKubeconfig("kubelet", "system:node:"+nodeName, "system:nodes")
	if err != nil {
		return err
	}
	certificate, key, ca, err := n.controlPlane.ServingCertificate("kubelet-serving", nodeName, nodeAddress)
	if err != nil {
		return err
	}
	config, err := n.writeConfig("kubelet.json", map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1",
		"kind":       "KubeletConfiguration",
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false},
			"webhook":   map[string]any{"enabled": true},
			"x509":      map[string]any{"clientCAFile": ca},
		},
		"authorization":            map[string]any{"mode": "Webhook"},
		"tlsCertFile":              certificate,
		"tlsPrivateKeyFile":        key,
		"cgroupDriver":             "cgroupfs",
		"cgroupRoot":               "/" + n.CGroup,
		"failCgroupV1":             false,
		"clusterDNS":               []string{dnsAddress},
		"clusterDomain":            clusterDomain,
		"containerRuntimeEndpoint": "unix://" + runtimeSocket,
		"maxPods":                  n.MaxPods,
		"podLogsDir":               "/var/log/pods",
		"resolvConf":               "",
		"oomScoreAdj":              0, // lower needs CAP_SYS_RESOURCE
		"failSwapOn":               false,
		"serializeImagePulls":      false,
		// The disk belongs to the machine, so its usage must not evict pods.
		"evictionHard":                  map[string]string{"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%", "imagefs.inodesFree": "0%"},
		"imageGCHighThresholdPercent":   100,
		"localStorageCapacityIsolation": false,
		// Tests wait for updates of Secret volumes and of the Node's status.
		"syncFrequency":             "10s",
		"nodeStatusUpdateFrequency": "5s",
	})
	if err != nil {
		return err
	}
	return n.controlPlane.Run(ctx, apiserver.Component{
		Name:    "kubelet",
		Program: n.Programs["kubelet"],
		Arguments: []string{
			"--config=" + config, "--kubeconfig=" + kubeconfig, "--hostname-override=" + nodeName, "--node-ip=" + nodeAddress,
			"--root-dir=/var/lib/kubelet", "--cert-dir=" + n.path("kubelet-certificates"), "--v=1",
		},
		Ready: n.nodeReady,
	})
}

// startProxy starts kube-proxy.
func (n *node) startProxy(ctx context.Context) error {
	kubeconfig, err := n.controlPlane.IssueKubeconfig("kube-proxy", "system:kube-proxy")
	if err != nil {
		return err
	}
	config, err := n.writeConfig("kube-proxy.json", map[string]any{
		"apiVersion":         "kubeproxy.config.k8s.io/v1alpha1",
		"kind":               "KubeProxyConfiguration",
		"mode":               "nftables",
		"clusterCIDR":        podRange,
		"hostnameOverride":   nodeName,
		"oomScoreAdj":        0,
		"clientConnection":   map[string]any{"kubeconfig": kubeconfig},
		"healthzBindAddress": "127.0.0.1:10256",
		"metricsBindAddress": "127.0.0.1:10249",
		// These settings belong to the machine.
		"conntrack": map[string]any{"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
		// Apply changed endpoints at once.
		"nftables": map[string]any{"minSyncPeriod": "100ms"},
	})
	if err != nil {
		return err
	}
	return n.controlPlane.Run(ctx, apiserver.Component{
		Name:      "kube-proxy",
		Program:   n.Programs["kube-proxy"],
		Arguments: []string{"--config=" + config, "--v=1"},
		Ready:     respondsOK("http://127.0.0.1:10256/healthz"),
	})
}

// writeConfig writes a component's configuration file.
func (n *node) writeConfig(file string, config map[string]any) (string, error) {
	content, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return "", err
	}
	return n.path(file), os.WriteFile(n.path(file), content, 0o600)
}
