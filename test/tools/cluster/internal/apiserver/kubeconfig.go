package apiserver

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// kubeconfigHeader is the first line of every kubeconfig that we write; a file without
// it is somebody's own and never overwritten or removed.
const kubeconfigHeader = "# Written by test/tools/cluster; removed when its control plane ends.\n"

const kubeconfigFormat = kubeconfigHeader + `apiVersion: v1
kind: Config
clusters:
- name: isthmus
  cluster:
    server: %s
    certificate-authority-data: %s
contexts:
- name: isthmus
  context:
    cluster: isthmus
    user: %s
current-context: isthmus
users:
- name: %[3]s
  user:
    client-certificate-data: %[4]s
    client-key-data: %[5]s
`

// kubeconfig renders the kubeconfig of a client that authority.client made.
func (a *authority) kubeconfig(server, client string) ([]byte, error) {
	var encoded [3]string
	for i, name := range []string{"ca.crt", client + ".crt", client + ".key"} {
		content, err := os.ReadFile(a.path(name))
		if err != nil {
			return nil, err
		}
		encoded[i] = base64.StdEncoding.EncodeToString(content)
	}
	return fmt.Appendf(nil, kubeconfigFormat, server, encoded[0], client, encoded[1], encoded[2]), nil
}

// writeKubeconfig writes a kubeconfig where the user asked for it, mode 0600.
// It refuses to replace a file that is not ours.
func writeKubeconfig(path string, content []byte) error {
	if err := checkOverwrite(path); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), ".kubeconfig-") // made with mode 0600
	if err != nil {
		return err
	}
	_, err = temporary.Write(content)
	if err = errors.Join(err, temporary.Close()); err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		_ = os.Remove(temporary.Name())
	}
	return err
}

// checkOverwrite fails when a file is there that we did not write.
func checkOverwrite(path string) error {
	existing, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(existing, []byte(kubeconfigHeader)) {
		return fmt.Errorf("%s exists and was not written by test/tools/cluster: name another file for --kubeconfig", path)
	}
	return nil
}

// removeKubeconfig removes the file that writeKubeconfig made, unless something
// else stands in its place by now.
func removeKubeconfig(path string, content []byte) error {
	existing, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && !bytes.Equal(existing, content)) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Remove(path)
}
