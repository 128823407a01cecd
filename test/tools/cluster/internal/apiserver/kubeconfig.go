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

// kubeconfigHeader is the first line of every kubeconfig that this package writes. A
// file without it belongs to the user and is never overwritten or removed.
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

// kubeconfig returns the kubeconfig of a client that issueClient has issued.
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

// writeKubeconfig writes a kubeconfig with mode 0600. It fails if the file exists and
// belongs to the user.
func writeKubeconfig(path string, content []byte) error {
	if err := checkOverwrite(path); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), ".kubeconfig-") // creates the file with mode 0600
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

// checkOverwrite returns an error if the file exists and was not written by this
// package.
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

// removeKubeconfig removes the file that writeKubeconfig wrote, unless its content has
// changed since.
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
