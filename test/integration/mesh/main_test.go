// Package mesh proves against a real API server that Istio's settings are
// discovered with the rights that the chart gives, and no more.
package mesh

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// admin is how to reach the API server as its administrator. TestMain sets it.
var admin *rest.Config

func TestMain(m *testing.M) {
	os.Exit(func() int {
		kubeconfig, stop, err := controlPlane()
		if err != nil {
			fmt.Fprintln(os.Stderr, "mesh: start a control plane:", err)
			return 1
		}
		defer stop()
		if admin, err = clientcmd.BuildConfigFromFlags("", kubeconfig); err != nil {
			fmt.Fprintln(os.Stderr, "mesh: read the kubeconfig:", err)
			return 1
		}
		return m.Run()
	}())
}

// harness runs a command of test/cluster, whose progress can be seen.
func harness(arguments ...string) *exec.Cmd {
	command := exec.Command("go", append([]string{"-C", "../../cluster", "run", "."}, arguments...)...)
	command.Stderr = os.Stderr
	return command
}

// controlPlane returns a kubeconfig: KUBECONFIG when set, or that of a control
// plane that lives until stop.
func controlPlane() (kubeconfig string, stop func(), err error) {
	if given := os.Getenv("KUBECONFIG"); given != "" {
		return given, func() {}, nil
	}
	command := harness("up")
	input, err := command.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	output, err := command.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := command.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = input.Close() // ends it
		_, _ = io.Copy(io.Discard, output)
		_ = command.Wait()
	}
	var announced struct {
		Kubeconfig string `json:"kubeconfig"`
	}
	line, err := bufio.NewReader(output).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &announced)
	}
	if err != nil {
		stop()
		return "", nil, fmt.Errorf("read what the control plane announces: %w", err)
	}
	return announced.Kubeconfig, stop, nil
}
