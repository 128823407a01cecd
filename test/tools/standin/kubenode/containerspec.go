package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// defaultUser is the user ID of a container whose pod sets none. There are no real images
// whose user could apply.
const defaultUser = 65532

// buildSpec returns the specification of the container's process and creates its root
// folder.
func (pc *podContainer) buildSpec(ctx context.Context) (containerSpec, error) {
	image, err := pc.findImage()
	if err != nil {
		return containerSpec{}, err
	}
	values, err := pc.environmentVariables(ctx)
	if err != nil {
		return containerSpec{}, err
	}
	if image.Workload {
		pc.addWorkloadVariables(values)
	}
	pc.disableEnvoy(values)
	c := containerSpec{Root: filepath.Join(pc.pod.folder, "roots", pc.spec.Name), Folder: "/"}
	if pc.spec.WorkingDir != "" {
		c.Folder = pc.spec.WorkingDir
	}
	c.User, c.Group, c.ReadOnly = pc.securityContext()
	if c.Binds, err = pc.bindMounts(image); err != nil {
		return c, err
	}
	c.Arguments = []string{image.Entrypoint}
	if len(pc.spec.Command) > 0 {
		c.Arguments = slices.Clone(pc.spec.Command)
		if _, ok := image.Programs[c.Arguments[0]]; !ok {
			c.Arguments[0] = image.Entrypoint
		}
	}
	for _, a := range pc.spec.Args {
		c.Arguments = append(c.Arguments, expand(a, values))
	}
	for name, value := range values {
		c.Env = append(c.Env, name+"="+value)
	}
	return c, pc.makeRoot(c)
}

// makeRoot creates the folder that becomes the container's root, with the folders and
// files that every image has. The container's user may write to it, unless its root file
// system is read-only.
func (pc *podContainer) makeRoot(c containerSpec) error {
	for _, folder := range []string{"", "tmp", "etc", "proc", "dev", "var", "var/run", "var/run/secrets"} {
		full := filepath.Join(c.Root, folder)
		if err := os.MkdirAll(full, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(full, 0o777); err != nil {
			return err
		}
	}
	resolve := fmt.Sprintf("nameserver %s\nsearch %s.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n", dnsAddress, pc.pod.apiPod.Namespace)
	hosts := fmt.Sprintf("127.0.0.1 localhost\n%s %s\n", pc.pod.sandbox.ip, pc.pod.apiPod.Name)
	for name, text := range map[string]string{"resolv.conf": resolve, "hosts": hosts} {
		if err := os.WriteFile(filepath.Join(c.Root, "etc", name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return os.MkdirAll(filepath.Join(c.Root, c.Folder), 0o755)
}

// findImage returns the stand-in for the container's image.
func (pc *podContainer) findImage() (Image, error) {
	name, _, _ := strings.Cut(pc.spec.Image, "@")
	if at := strings.LastIndex(name, ":"); at > strings.LastIndex(name, "/") {
		name = name[:at]
	}
	for _, image := range pc.pod.node.settings.Images {
		if name == image.Repository || strings.HasSuffix(name, "/"+image.Repository) {
			return image, nil
		}
	}
	return Image{}, fmt.Errorf("ErrImagePull: no stand-in for image %s", pc.spec.Image)
}

func (pc *podContainer) securityContext() (user, group int, readOnly bool) {
	user = defaultUser
	if s := pc.pod.apiPod.Spec.SecurityContext; s != nil {
		user = int(ptr.Deref(s.RunAsUser, int64(user)))
		group = int(ptr.Deref(s.RunAsGroup, 0))
	}
	if s := pc.spec.SecurityContext; s != nil {
		user = int(ptr.Deref(s.RunAsUser, int64(user)))
		group = int(ptr.Deref(s.RunAsGroup, int64(group)))
		readOnly = ptr.Deref(s.ReadOnlyRootFilesystem, false)
	}
	return user, group, readOnly
}

func (pc *podContainer) bindMounts(image Image) ([]bindMount, error) {
	var binds []bindMount
	for inside, outside := range image.Programs {
		binds = append(binds, bindMount{Source: outside, Target: inside, ReadOnly: true})
	}
	for _, m := range pc.spec.VolumeMounts {
		source := filepath.Join(pc.pod.volumeFolder(m.Name), m.SubPath)
		if _, err := os.Stat(source); err != nil {
			return nil, err
		}
		binds = append(binds, bindMount{Source: source, Target: m.MountPath, ReadOnly: m.ReadOnly})
	}
	binds = append(binds, pc.proxyFolderMounts()...)
	// Mount parents before their children.
	slices.SortStableFunc(binds, func(a, b bindMount) int {
		return strings.Count(path.Clean(a.Target), "/") - strings.Count(path.Clean(b.Target), "/")
	})
	return binds, nil
}

// environmentVariables returns the container's environment variables, with those that the
// kubelet adds.
func (pc *podContainer) environmentVariables(ctx context.Context) (map[string]string, error) {
	values := map[string]string{
		"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/", "HOSTNAME": pc.pod.apiPod.Name,
		"KUBERNETES_SERVICE_HOST": apiServerAddress, "KUBERNETES_SERVICE_PORT": "443",
	}
	for _, from := range pc.spec.EnvFrom {
		if from.ConfigMapRef == nil {
			return nil, errors.New("envFrom supports only ConfigMaps here")
		}
		cm, err := pc.pod.node.client.CoreV1().ConfigMaps(pc.pod.apiPod.Namespace).Get(ctx, from.ConfigMapRef.Name, metav1.GetOptions{})
		if err := ignoreIfOptional(from.ConfigMapRef.Optional, err); err != nil {
			return nil, err
		}
		for name, value := range cm.Data {
			values[from.Prefix+name] = value
		}
	}
	for _, e := range pc.spec.Env {
		value, err := pc.variableValue(ctx, e)
		if err != nil {
			return nil, err
		}
		values[e.Name] = expand(value, values)
	}
	return values, nil
}

func (pc *podContainer) variableValue(ctx context.Context, e corev1.EnvVar) (string, error) {
	from := e.ValueFrom
	core := pc.pod.node.client.CoreV1()
	switch {
	case from == nil:
		return e.Value, nil
	case from.FieldRef != nil:
		return pc.pod.fieldValue(from.FieldRef.FieldPath), nil
	case from.ResourceFieldRef != nil:
		return pc.resourceValue(from.ResourceFieldRef), nil
	case from.ConfigMapKeyRef != nil:
		cm, err := core.ConfigMaps(pc.pod.apiPod.Namespace).Get(ctx, from.ConfigMapKeyRef.Name, metav1.GetOptions{})
		if err != nil {
			return "", ignoreIfOptional(from.ConfigMapKeyRef.Optional, err)
		}
		return cm.Data[from.ConfigMapKeyRef.Key], nil
	case from.SecretKeyRef != nil:
		secret, err := core.Secrets(pc.pod.apiPod.Namespace).Get(ctx, from.SecretKeyRef.Name, metav1.GetOptions{})
		if err != nil {
			return "", ignoreIfOptional(from.SecretKeyRef.Optional, err)
		}
		return string(secret.Data[from.SecretKeyRef.Key]), nil
	}
	return "", fmt.Errorf("environment variable %s: unknown source", e.Name)
}

// resourceValue returns a request or limit, rounded up. If the container sets none, it
// returns a default for a node of 2 CPUs and 4 GiB.
func (pc *podContainer) resourceValue(s *corev1.ResourceFieldSelector) string {
	kind, name, _ := strings.Cut(s.Resource, ".")
	list := pc.spec.Resources.Limits
	if kind == "requests" {
		list = pc.spec.Resources.Requests
	}
	q, ok := list[corev1.ResourceName(name)]
	if !ok {
		q = map[string]resource.Quantity{"cpu": resource.MustParse("2"), "memory": resource.MustParse("4Gi")}[name]
	}
	divisor := s.Divisor.AsApproximateFloat64()
	if divisor == 0 {
		divisor = 1
	}
	n := int64(q.AsApproximateFloat64() / divisor)
	if float64(n)*divisor < q.AsApproximateFloat64() {
		n++
	}
	return fmt.Sprint(n)
}

var mapField = regexp.MustCompile(`^metadata\.(labels|annotations)\['(.+)'\]$`)

// fieldValue returns the value of a field for the downward API.
func (p *pod) fieldValue(path string) string {
	if m := mapField.FindStringSubmatch(path); m != nil {
		if m[1] == "labels" {
			return p.apiPod.Labels[m[2]]
		}
		return p.apiPod.Annotations[m[2]]
	}
	switch path {
	case "metadata.name":
		return p.apiPod.Name
	case "metadata.namespace":
		return p.apiPod.Namespace
	case "metadata.uid":
		return string(p.apiPod.UID)
	case "metadata.labels":
		return formatMap(p.apiPod.Labels)
	case "metadata.annotations":
		return formatMap(p.apiPod.Annotations)
	case "spec.nodeName":
		return nodeName
	case "spec.serviceAccountName":
		return p.apiPod.Spec.ServiceAccountName
	case "status.podIP", "status.podIPs":
		return p.sandbox.ip
	case "status.hostIP", "status.hostIPs":
		return hostAddress
	}
	return ""
}

// formatMap formats a map as the downward API does.
func formatMap(m map[string]string) string {
	var all []string
	for k, v := range m {
		all = append(all, fmt.Sprintf("%s=%q", k, v))
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

var variableReference = regexp.MustCompile(`\$\([A-Za-z_.-][A-Za-z0-9_.-]*\)`)

// expand replaces references of the form $(NAME). Like the kubelet, it does not change
// references to unknown variables.
func expand(text string, values map[string]string) string {
	return variableReference.ReplaceAllStringFunc(text, func(found string) string {
		if value, ok := values[found[2:len(found)-1]]; ok {
			return value
		}
		return found
	})
}

// ignoreIfOptional returns nil if optional is true, or else err.
func ignoreIfOptional(optional *bool, err error) error {
	if ptr.Deref(optional, false) {
		return nil
	}
	return err
}
