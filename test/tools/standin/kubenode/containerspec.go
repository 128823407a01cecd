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

// anyUser is who a container runs as when pod and image name nobody: images of
// Isthmus and Istio do.
const anyUser = 65532

// assemble makes the container of the pod's words.
func (u *unit) assemble(ctx context.Context) (container, error) {
	image, err := u.image()
	if err != nil {
		return container{}, err
	}
	values, err := u.environment(ctx)
	if err != nil {
		return container{}, err
	}
	if image.Workload {
		u.introduce(values)
	}
	u.withoutEnvoy(values)
	c := container{Root: filepath.Join(u.pod.folder, "roots", u.spec.Name), Folder: "/"}
	if u.spec.WorkingDir != "" {
		c.Folder = u.spec.WorkingDir
	}
	c.User, c.Group, c.ReadOnly = u.security()
	if c.Binds, err = u.binds(image); err != nil {
		return c, err
	}
	c.Arguments = []string{image.Entrypoint}
	if len(u.spec.Command) > 0 {
		c.Arguments = slices.Clone(u.spec.Command)
		if _, ok := image.Programs[c.Arguments[0]]; !ok {
			c.Arguments[0] = image.Entrypoint
		}
	}
	for _, a := range u.spec.Args {
		c.Arguments = append(c.Arguments, expand(a, values))
	}
	for name, value := range values {
		c.Env = append(c.Env, name+"="+value)
	}
	return c, u.root(c)
}

// root makes the folder that becomes the container's root, with what every image
// has. The container's user may write there, unless its root is read-only.
func (u *unit) root(c container) error {
	for _, folder := range []string{"", "tmp", "etc", "proc", "dev", "var", "var/run", "var/run/secrets"} {
		full := filepath.Join(c.Root, folder)
		if err := os.MkdirAll(full, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(full, 0o777); err != nil {
			return err
		}
	}
	resolve := fmt.Sprintf("nameserver %s\nsearch %s.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n", nameServer, u.pod.object.Namespace)
	hosts := fmt.Sprintf("127.0.0.1 localhost\n%s %s\n", u.pod.box.ip, u.pod.object.Name)
	for name, text := range map[string]string{"resolv.conf": resolve, "hosts": hosts} {
		if err := os.WriteFile(filepath.Join(c.Root, "etc", name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return os.MkdirAll(filepath.Join(c.Root, c.Folder), 0o755)
}

// image finds what stands for the container's image.
func (u *unit) image() (Image, error) {
	name, _, _ := strings.Cut(u.spec.Image, "@")
	if at := strings.LastIndex(name, ":"); at > strings.LastIndex(name, "/") {
		name = name[:at]
	}
	for _, image := range u.pod.node.settings.Images {
		if name == image.Repository || strings.HasSuffix(name, "/"+image.Repository) {
			return image, nil
		}
	}
	return Image{}, fmt.Errorf("ErrImagePull: nothing stands for image %s here", u.spec.Image)
}

func (u *unit) security() (user, group int, readOnly bool) {
	user = anyUser
	if s := u.pod.object.Spec.SecurityContext; s != nil {
		user = int(ptr.Deref(s.RunAsUser, int64(user)))
		group = int(ptr.Deref(s.RunAsGroup, 0))
	}
	if s := u.spec.SecurityContext; s != nil {
		user = int(ptr.Deref(s.RunAsUser, int64(user)))
		group = int(ptr.Deref(s.RunAsGroup, int64(group)))
		readOnly = ptr.Deref(s.ReadOnlyRootFilesystem, false)
	}
	return user, group, readOnly
}

func (u *unit) binds(image Image) ([]bind, error) {
	var binds []bind
	for inside, outside := range image.Programs {
		binds = append(binds, bind{Source: outside, Target: inside, ReadOnly: true})
	}
	for _, m := range u.spec.VolumeMounts {
		source := filepath.Join(u.pod.volume(m.Name), m.SubPath)
		if _, err := os.Stat(source); err != nil {
			return nil, err
		}
		binds = append(binds, bind{Source: source, Target: m.MountPath, ReadOnly: m.ReadOnly})
	}
	binds = append(binds, u.meeting()...)
	// Mounts inside of mounts come later.
	slices.SortStableFunc(binds, func(a, b bind) int {
		return strings.Count(path.Clean(a.Target), "/") - strings.Count(path.Clean(b.Target), "/")
	})
	return binds, nil
}

// environment is the container's, with what kubelet adds.
func (u *unit) environment(ctx context.Context) (map[string]string, error) {
	values := map[string]string{
		"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/", "HOSTNAME": u.pod.object.Name,
		"KUBERNETES_SERVICE_HOST": apiServerAddress, "KUBERNETES_SERVICE_PORT": "443",
	}
	for _, from := range u.spec.EnvFrom {
		if from.ConfigMapRef == nil {
			return nil, errors.New("environment from other than a ConfigMap: not here")
		}
		cm, err := u.pod.node.client.CoreV1().ConfigMaps(u.pod.object.Namespace).Get(ctx, from.ConfigMapRef.Name, metav1.GetOptions{})
		if err := optional(from.ConfigMapRef.Optional, err); err != nil {
			return nil, err
		}
		for name, value := range cm.Data {
			values[from.Prefix+name] = value
		}
	}
	for _, e := range u.spec.Env {
		value, err := u.value(ctx, e)
		if err != nil {
			return nil, err
		}
		values[e.Name] = expand(value, values)
	}
	return values, nil
}

func (u *unit) value(ctx context.Context, e corev1.EnvVar) (string, error) {
	from := e.ValueFrom
	core := u.pod.node.client.CoreV1()
	switch {
	case from == nil:
		return e.Value, nil
	case from.FieldRef != nil:
		return u.pod.field(from.FieldRef.FieldPath), nil
	case from.ResourceFieldRef != nil:
		return u.resource(from.ResourceFieldRef), nil
	case from.ConfigMapKeyRef != nil:
		cm, err := core.ConfigMaps(u.pod.object.Namespace).Get(ctx, from.ConfigMapKeyRef.Name, metav1.GetOptions{})
		if err != nil {
			return "", optional(from.ConfigMapKeyRef.Optional, err)
		}
		return cm.Data[from.ConfigMapKeyRef.Key], nil
	case from.SecretKeyRef != nil:
		secret, err := core.Secrets(u.pod.object.Namespace).Get(ctx, from.SecretKeyRef.Name, metav1.GetOptions{})
		if err != nil {
			return "", optional(from.SecretKeyRef.Optional, err)
		}
		return string(secret.Data[from.SecretKeyRef.Key]), nil
	}
	return "", fmt.Errorf("environment variable %s: unknown source", e.Name)
}

// resource is a request or limit; without one, of a machine of ordinary size.
func (u *unit) resource(s *corev1.ResourceFieldSelector) string {
	kind, name, _ := strings.Cut(s.Resource, ".")
	list := u.spec.Resources.Limits
	if kind == "requests" {
		list = u.spec.Resources.Requests
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

var keyed = regexp.MustCompile(`^metadata\.(labels|annotations)\['(.+)'\]$`)

// field is what the downward API says.
func (p *pod) field(path string) string {
	if m := keyed.FindStringSubmatch(path); m != nil {
		if m[1] == "labels" {
			return p.object.Labels[m[2]]
		}
		return p.object.Annotations[m[2]]
	}
	switch path {
	case "metadata.name":
		return p.object.Name
	case "metadata.namespace":
		return p.object.Namespace
	case "metadata.uid":
		return string(p.object.UID)
	case "metadata.labels":
		return lines(p.object.Labels)
	case "metadata.annotations":
		return lines(p.object.Annotations)
	case "spec.nodeName":
		return nodeName
	case "spec.serviceAccountName":
		return p.object.Spec.ServiceAccountName
	case "status.podIP", "status.podIPs":
		return p.box.ip
	case "status.hostIP", "status.hostIPs":
		return hostAddress
	}
	return ""
}

// lines writes a map as the downward API does.
func lines(m map[string]string) string {
	var all []string
	for k, v := range m {
		all = append(all, fmt.Sprintf("%s=%q", k, v))
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

var reference = regexp.MustCompile(`\$\([A-Za-z_.-][A-Za-z0-9_.-]*\)`)

// expand replaces $(NAME); what is unknown stays, as with kubelet.
func expand(text string, values map[string]string) string {
	return reference.ReplaceAllStringFunc(text, func(found string) string {
		if value, ok := values[found[2:len(found)-1]]; ok {
			return value
		}
		return found
	})
}

// optional forgives an error where the pod does.
func optional(is *bool, err error) error {
	if ptr.Deref(is, false) {
		return nil
	}
	return err
}
