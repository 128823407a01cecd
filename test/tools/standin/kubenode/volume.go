package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// volumeFolder returns the folder of a volume.
func (p *pod) volumeFolder(name string) string { return filepath.Join(p.folder, "volumes", name) }

// fillVolumes creates every volume. It returns an error if a Secret or ConfigMap is
// missing.
func (p *pod) fillVolumes(ctx context.Context) error {
	for _, v := range p.apiPod.Spec.Volumes {
		if err := os.MkdirAll(p.volumeFolder(v.Name), 0o755); err != nil {
			return err
		}
		if err := os.Chmod(p.volumeFolder(v.Name), 0o777); err != nil {
			return err
		}
		if err := p.fillVolume(ctx, v, true); err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
	}
	return nil
}

// refreshVolumes updates the files of Secrets and ConfigMaps, as the kubelet does about
// every minute.
func (p *pod) refreshVolumes(ctx context.Context) error {
	var errs []error
	for _, v := range p.apiPod.Spec.Volumes {
		errs = append(errs, p.fillVolume(ctx, v, false))
	}
	return errors.Join(errs...)
}

func (p *pod) fillVolume(ctx context.Context, v corev1.Volume, first bool) error {
	var sources []corev1.VolumeProjection
	switch {
	case v.Secret != nil:
		sources = append(sources, corev1.VolumeProjection{Secret: &corev1.SecretProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: v.Secret.SecretName}, Items: v.Secret.Items, Optional: v.Secret.Optional,
		}})
	case v.ConfigMap != nil:
		sources = append(sources, corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{
			LocalObjectReference: v.ConfigMap.LocalObjectReference, Items: v.ConfigMap.Items, Optional: v.ConfigMap.Optional,
		}})
	case v.DownwardAPI != nil:
		sources = append(sources, corev1.VolumeProjection{DownwardAPI: &corev1.DownwardAPIProjection{Items: v.DownwardAPI.Items}})
	case v.Projected != nil:
		sources = v.Projected.Sources
	case v.EmptyDir != nil:
	case v.HostPath != nil:
		// Pods see no files of this machine: the folder stays empty.
	default:
		return errors.New("this kind of volume is not supported here")
	}
	for _, s := range sources {
		if err := p.writeProjection(ctx, p.volumeFolder(v.Name), s, first); err != nil {
			return err
		}
	}
	return nil
}

// writeProjection writes one source of a volume to a folder. Tokens and the downward API
// are written only once: no guide runs long enough for a token to expire.
func (p *pod) writeProjection(ctx context.Context, folder string, s corev1.VolumeProjection, first bool) error {
	core := p.node.client.CoreV1()
	switch {
	case s.Secret != nil:
		secret, err := core.Secrets(p.apiPod.Namespace).Get(ctx, s.Secret.Name, metav1.GetOptions{})
		if err != nil {
			return ignoreIfOptional(s.Secret.Optional, err)
		}
		return writeItems(folder, s.Secret.Items, secret.Data)
	case s.ConfigMap != nil:
		cm, err := core.ConfigMaps(p.apiPod.Namespace).Get(ctx, s.ConfigMap.Name, metav1.GetOptions{})
		if err != nil {
			return ignoreIfOptional(s.ConfigMap.Optional, err)
		}
		data := map[string][]byte{}
		for k, text := range cm.Data {
			data[k] = []byte(text)
		}
		return writeItems(folder, s.ConfigMap.Items, data)
	case !first:
		return nil
	case s.DownwardAPI != nil:
		for _, item := range s.DownwardAPI.Items {
			if item.FieldRef == nil {
				continue
			}
			if err := replaceFile(filepath.Join(folder, item.Path), []byte(p.fieldValue(item.FieldRef.FieldPath))); err != nil {
				return err
			}
		}
		return nil
	case s.ServiceAccountToken != nil:
		t, err := p.createToken(ctx, s.ServiceAccountToken)
		if err != nil {
			return err
		}
		return replaceFile(filepath.Join(folder, s.ServiceAccountToken.Path), []byte(t))
	}
	return errors.New("this source of a projected volume is not supported here")
}

func (p *pod) createToken(ctx context.Context, s *corev1.ServiceAccountTokenProjection) (string, error) {
	spec := authenticationv1.TokenRequestSpec{
		ExpirationSeconds: s.ExpirationSeconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: p.apiPod.Name, UID: p.apiPod.UID},
	}
	if s.Audience != "" {
		spec.Audiences = []string{s.Audience}
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	t, err := p.node.client.CoreV1().ServiceAccounts(p.apiPod.Namespace).CreateToken(
		ctx, p.apiPod.Spec.ServiceAccountName, &authenticationv1.TokenRequest{Spec: spec}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return t.Status.Token, nil
}

func writeItems(folder string, items []corev1.KeyToPath, data map[string][]byte) error {
	if len(items) == 0 {
		for key, content := range data {
			if err := replaceFile(filepath.Join(folder, key), content); err != nil {
				return err
			}
		}
		return nil
	}
	for _, item := range items {
		content, ok := data[item.Key]
		if !ok {
			return fmt.Errorf("no key %s", item.Key)
		}
		if err := replaceFile(filepath.Join(folder, item.Path), content); err != nil {
			return err
		}
	}
	return nil
}

// replaceFile replaces a file atomically if its content differs.
func replaceFile(path string, content []byte) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	hidden := filepath.Join(filepath.Dir(path), ".new-"+filepath.Base(path))
	if err := os.WriteFile(hidden, content, 0o644); err != nil {
		return err
	}
	return os.Rename(hidden, path)
}
